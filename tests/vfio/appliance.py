"""The classic topology with a guest of QEMU's as its director: the package installed, NICs given to vfio-pci, the service under systemd."""

import contextlib
import json
import subprocess
import sys
import time

from lab import Classic, ready_binary
from lab.package import package
from lab.topology import DIRECTOR_MAC, REPOSITORY

sys.path.insert(0, str(REPOSITORY / "docker" / "qemu"))

from guest import Guest, Nic  # noqa: E402

LAN = Nic("vmxnet3", bus=3, mac=DIRECTOR_MAC, tap="lan0")
EDGE = Nic("e1000e", bus=2, mac="02:10:10:10:11:10", tap="edge0")
# The only one of QEMU's NICs that spreads flows over queues and that DPDK has a driver for: its vmxnet3 tells of RSS and uses its first queue alone.
SPREAD = Nic("virtio-net-pci,mq=on,rss=on,vectors=8,iommu_platform=on,disable-legacy=on", bus=1, mac="02:10:10:10:12:10", tap="spread0", queues=2)
# Networks of the LAN's port, before a host's number; the VIP in the EDGE's network, 10.10.25.0/24.
LAN_PORT = ("10.10.24.", "fd00:10::")
EDGE_VIP = "10.10.25.88"
SERVERS = {"rs1", "rs2", "rs3"}


def say(text):
    """A line of progress: a guest takes minutes where a test takes seconds."""
    print(f"  [{time.strftime('%H:%M:%S')}] {text}", file=sys.__stderr__, flush=True)


def disk():
    """The guests' disk, made when it is not there."""
    done = subprocess.run([REPOSITORY / "docker" / "qemu" / "image", package()], stdout=subprocess.PIPE, text=True, check=True, timeout=1800)
    return REPOSITORY / done.stdout.strip()


class Site(Classic):
    """Client, router, switch and three real servers that serve; guests are plugged into the switch where the director would be."""

    def build(self):
        super().build()
        ready_binary(self)
        self.serve()

    def _build_director(self):
        # The director's end of the cable is a guest's NIC.
        pass

    @contextlib.contextmanager
    def guest(self, name, nics, wait=True, **more):
        """A guest, the cables of whose NICs are in the switch; one that is up unless `wait` is False."""
        guest = Guest(name, disk(), self.folder / f"guest-{name}", nics, self.switch.start, say, share=package().parent, **more)
        say(f"guest {name} boots")
        guest.begin()
        try:
            self._plug(guest)
            if wait:
                guest.wait_until_up()
            yield guest
        finally:
            guest.end()

    def _plug(self, guest):
        until = time.monotonic() + 60
        for nic in guest.nics:
            while not self._has(nic.tap):
                assert guest.process.poll() is None and time.monotonic() < until, (guest.folder / "qemu.log").read_text()
                time.sleep(0.1)
            self.switch.ip(f"link set {nic.tap} master br0 up")

    def _has(self, device):
        try:
            return bool(self.switch.counters(device))
        except KeyError:
            return False


def be_patient(guest):
    """Gives units the time that an emulated processor takes on a busy machine: the time-outs of the package are meant for real ones."""
    for unit, limits in (("baton.service", "TimeoutStartSec=600\nWatchdogSec=120\n"), ("baton-bind@.service", "TimeoutSec=600\n")):
        guest.run(f"mkdir -p /etc/systemd/system/{unit}.d && printf '[Service]\n{limits}' >/etc/systemd/system/{unit}.d/patience.conf")


def bring_package(guest):
    """Copies the package to where the operator's commands are typed."""
    guest.run(f"mount -t 9p -o trans=virtio,ro share /mnt && cp /mnt/{package().name} /root/ && umount /mnt")


def follow(guest, step):
    """Carries out one of the guide's commands in the guest."""
    say(f"{guest.name}# {step.command.splitlines()[0]}")
    if step.command == "systemctl reboot":
        guest.reboot()
    else:
        guest.run(f"cd /root && {step.command}")


def ready(guest):
    """Waits until the director says that it is ready: every neighbour was asked for, every port has a link."""
    guest.wait("curl -sf --unix-socket /run/baton/baton.sock http://localhost/readyz")


def get(guest, what):
    """What `baton get` shows, as the API's document."""
    return json.loads(guest.run(f"baton get {what} -o json"))


def reconfigure(guest, nics_and_ports, cores, idle="adaptive"):
    """Gives the service another configuration, and NICs to vfio-pci by driverctl as far as it does not have them. A list of NICs has one port."""
    for nic in (nic for nics, _ in nics_and_ports for nic in (nics if isinstance(nics, list) else [nics])):
        bind = f"baton-bind@{nic.pci}"
        guest.run(f"systemctl is-active --quiet {bind} || {{ driverctl set-override {nic.pci} vfio-pci && systemctl enable --now {bind}; }}")
    text = "".join(ports for _, ports in nics_and_ports) + f'[workers]\ncores = {cores}\nidle = "{idle}"\n[control]\ncore = 0\n'
    guest.run(f"cat >/etc/baton/baton.toml <<'END'\n{text}END\n")
    guest.run("systemctl restart baton || { journalctl -b -u baton --no-pager | tail -n 40; exit 1; }")


def port(name, nic, network, network6=None):
    """A table [[port]] in a network whose gateway is number 1 and whose director is number 10; of a list of NICs, a bond."""
    device = f'members = {json.dumps([member.pci for member in nic])}\nbond = "active-backup"' if isinstance(nic, list) else f'device = "{nic.pci}"'
    addresses, gateways = [f"{network}10/24"], [f"{network}1"]
    if network6:
        addresses, gateways = [*addresses, f"{network6}10/64"], [*gateways, f"{network6}1"]
    return f'[[port]]\nname = "{name}"\n{device}\naddresses = {json.dumps(addresses)}\ngateways = {json.dumps(gateways)}\n'


def turns(guest):
    """How often the workers have turned."""
    text = guest.run("curl -sf --unix-socket /run/baton/baton.sock http://localhost/metrics | grep ^baton_worker_turns")
    return sum(float(line.split()[1]) for line in text.splitlines())


def interrupts(guest, nic):
    """How many interrupts of a NIC's receive queues the kernel has passed on to vfio's user; its first vector is for everything else."""
    lines = [line.split() for line in guest.run("cat /proc/interrupts").splitlines() if f"({nic.pci})" in line and "vfio-msix[0]" not in line]
    return sum(int(word) for line in lines for word in line[1:] if word.isdecimal())


def service(vip, scheduler="rr"):
    """A line that makes a virtual service with all real servers."""
    vip, rips = (f"[{vip}]", [f"[fd00:10::{last}]:80" for last in (21, 22, 23)]) if ":" in vip else (vip, [f"10.10.24.{last}" for last in (21, 22, 23)])
    return " && ".join([f"baton ipvsadm -A -t {vip}:80 -s {scheduler}", *(f"baton ipvsadm -a -t {vip}:80 -r {rip} -g" for rip in rips)])
