//! Values that `baton.toml` writes as text.

use std::fmt;
use std::str::FromStr;

/// An amount of memory, written as `512M` or `1G`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ByteSize(u64);

impl ByteSize {
    /// How an amount of memory is written.
    pub(super) const EXPECTED: &'static str = "an amount of memory such as \"512M\" or \"1G\", from 64M to 1024G";
    const MIB: u64 = 1 << 20;

    /// The amount in whole MiB, 64 to 1 048 576.
    pub fn mebibytes(self) -> u32 {
        u32::try_from(self.0 / Self::MIB).unwrap_or(u32::MAX)
    }
}

/// A text is not an amount of memory.
#[derive(Debug)]
pub struct NotByteSize;

impl FromStr for ByteSize {
    type Err = NotByteSize;

    fn from_str(text: &str) -> Result<Self, NotByteSize> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = match text[digits.len()..].trim() {
            "M" | "MB" | "MiB" => Self::MIB,
            "G" | "GB" | "GiB" => Self::MIB << 10,
            _ => return Err(NotByteSize),
        };
        let amount = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).ok_or(NotByteSize)?;
        if (Self::MIB << 6..=Self::MIB << 20).contains(&amount) { Ok(Self(amount)) } else { Err(NotByteSize) }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = self.0 / Self::MIB;
        if mebibytes.is_multiple_of(1024) { write!(f, "{}G", mebibytes / 1024) } else { write!(f, "{mebibytes}M") }
    }
}

/// How many of something: `10M` is ten million.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Count(pub u32);

impl Count {
    /// How a count is written.
    pub(crate) const EXPECTED: &'static str = "a whole number, or a text such as \"10M\" or \"2500K\" (K: thousand, M: million)";
}

/// A text is not a count.
#[derive(Debug, thiserror::Error)]
#[error("expected {}", Count::EXPECTED)]
pub struct NotCount;

impl FromStr for Count {
    type Err = NotCount;

    fn from_str(text: &str) -> Result<Self, NotCount> {
        let (digits, unit) = match text.as_bytes() {
            [.., b'K'] => (&text[..text.len() - 1], 1_000),
            [.., b'M'] => (&text[..text.len() - 1], 1_000_000),
            _ => (text, 1),
        };
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotCount);
        }
        digits.parse::<u32>().ok().and_then(|n| n.checked_mul(unit)).map(Self).ok_or(NotCount)
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n > 0 && n.is_multiple_of(1_000_000) => write!(f, "{}M", n / 1_000_000),
            n if n > 0 && n.is_multiple_of(1_000) => write!(f, "{}K", n / 1_000),
            n => write!(f, "{n}"),
        }
    }
}

/// A DPDK device as the configuration names it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Device {
    /// A PCI device by its full address, `0000:03:00.0`.
    Pci(String),
    /// A virtual device with its arguments, `net_af_packet0,iface=d0`.
    Virtual(String),
}

impl Device {
    /// How a device is written.
    pub(crate) const EXPECTED: &'static str = "a PCI address such as \"0000:03:00.0\", or a DPDK virtual device such as \
         \"net_af_packet0,iface=eth1\" (net_, the driver, a number, then its arguments)";

    /// What DPDK calls the port: the PCI address, or the virtual device without its arguments.
    pub fn port_name(&self) -> &str {
        match self {
            Self::Pci(address) => address,
            Self::Virtual(text) => text.split(',').next().unwrap_or_default(),
        }
    }

    /// The virtual device's driver, such as `net_af_packet`.
    pub fn driver(&self) -> Option<&str> {
        match self {
            Self::Pci(_) => None,
            Self::Virtual(_) => Some(self.port_name().trim_end_matches(|c: char| c.is_ascii_digit())),
        }
    }

    /// Whether both are one device, or stand on one interface of the kernel.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let interface = self.kernel_interface();
        self.port_name() == other.port_name() || (interface.is_some() && interface == other.kernel_interface())
    }

    /// The value of a virtual device's argument: `iface` of `net_af_packet0,iface=d0` is `d0`.
    pub fn argument(&self, name: &str) -> Option<&str> {
        let Self::Virtual(text) = self else { return None };
        text.split(',').skip(1).filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The kernel's interface that frames are taken from and given to, for the drivers that work that way.
    pub fn kernel_interface(&self) -> Option<&str> {
        matches!(self.driver(), Some("net_af_packet" | "net_af_xdp")).then(|| self.argument("iface")).flatten()
    }
}

/// A text is not a device.
#[derive(Debug)]
pub struct NotDevice;

impl FromStr for Device {
    type Err = NotDevice;

    fn from_str(text: &str) -> Result<Self, NotDevice> {
        if let Some(address) = pci_address(text) {
            return Ok(Self::Pci(address));
        }
        let name = text.split(',').next().unwrap_or_default();
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let driver = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let named = name.starts_with("net_") && driver.len() > "net_".len() && driver.len() < name.len() && name.chars().all(plain);
        // DPDK's limit for names of devices is 64 bytes, the closing zero included.
        if named && name.len() < 64 && !text.contains(char::is_whitespace) { Ok(Self::Virtual(text.to_owned())) } else { Err(NotDevice) }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(text) | Self::Virtual(text) => f.write_str(text),
        }
    }
}

/// `03:00.0` or `0000:03:00.0` in its full, lower-case form.
fn pci_address(text: &str) -> Option<String> {
    let hex = |part: &str, digits: usize| part.len() == digits && part.chars().all(|c| c.is_ascii_hexdigit());
    let lower = text.to_ascii_lowercase();
    let full = if lower.matches(':').count() == 1 { format!("0000:{lower}") } else { lower };
    let (domain, rest) = full.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    (hex(domain, 4) && hex(bus, 2) && hex(device, 2) && matches!(function.as_bytes(), [b'0'..=b'7'])).then_some(full)
}

/// A unicast MAC that is not zero.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnicastMac(pub(super) [u8; 6]);

impl UnicastMac {
    /// How a MAC is written.
    pub(super) const EXPECTED: &'static str = "a unicast MAC such as \"02:00:00:00:00:15\"";
}

impl FromStr for UnicastMac {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part = parts.next().filter(|part| part.len() == 2).ok_or(())?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| ())?;
        }
        let unicast = mac[0] & 1 == 0 && mac != [0; 6];
        if parts.next().is_none() && unicast { Ok(Self(mac)) } else { Err(()) }
    }
}
