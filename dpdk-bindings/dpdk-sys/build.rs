//! Finds the installed DPDK, generates the raw bindings and compiles the wrappers of its static inline functions.

use std::env;
use std::path::PathBuf;
use std::process::{Command, exit};

/// Oldest DPDK that these bindings are written for: Debian 12's.
const OLDEST_DPDK: &str = "22.11";

/// What mends whatever is missing here.
const INSTALL: &str = "install what is missing with: apt-get install libdpdk-dev libclang-dev pkg-config";

/// Everything that the `dpdk` crate calls; a name that is missing here does not compile there.
const FUNCTIONS: &[&str] = &[
    "baton_bond_active",
    "baton_errno",
    "baton_eth_link",
    "baton_eth_link_by_asking",
    "baton_pktmbuf_pool",
    "rte_dev_probe",
    "rte_eal_cleanup",
    "rte_eal_get_lcore_state",
    "rte_eal_init",
    "rte_eal_remote_launch",
    "rte_epoll_wait",
    "rte_eth_allmulticast_enable",
    "rte_eth_allmulticast_get",
    "rte_eth_bond_link_monitoring_set",
    "rte_eth_bond_mac_address_set",
    "rte_eth_bond_primary_get",
    "rte_eth_bond_primary_set",
    "rte_eth_dev_adjust_nb_rx_tx_desc",
    "rte_eth_dev_close",
    "rte_eth_dev_configure",
    "rte_eth_dev_count_avail",
    "rte_eth_dev_default_mac_addr_set",
    "rte_eth_dev_get_mtu",
    "rte_eth_dev_get_name_by_port",
    "rte_eth_dev_get_port_by_name",
    "rte_eth_dev_info_get",
    "rte_eth_dev_rss_reta_update",
    "rte_eth_dev_rx_intr_ctl_q",
    "rte_eth_dev_rx_intr_ctl_q_get_fd",
    "rte_eth_dev_rx_intr_disable",
    "rte_eth_dev_rx_intr_enable",
    "rte_eth_dev_set_mc_addr_list",
    "rte_eth_dev_socket_id",
    "rte_eth_dev_start",
    "rte_eth_dev_stop",
    "rte_eth_find_next_owned_by",
    "rte_eth_from_rings",
    "rte_eth_macaddr_get",
    "rte_eth_promiscuous_get",
    "rte_eth_rx_burst",
    "rte_eth_rx_queue_setup",
    "rte_eth_stats_get",
    "rte_eth_tx_burst",
    "rte_eth_tx_queue_setup",
    "rte_eth_xstats_get",
    "rte_eth_xstats_get_names",
    "rte_get_tsc_hz",
    "rte_mempool_avail_count",
    "rte_pktmbuf_alloc",
    "rte_pktmbuf_alloc_bulk",
    "rte_pktmbuf_free",
    "rte_pktmbuf_free_bulk",
    "rte_rdtsc",
    "rte_ring_count",
    "rte_ring_create",
    "rte_ring_dequeue_burst",
    "rte_ring_enqueue_burst",
    "rte_ring_free",
];

/// Constants; types follow from the functions.
const CONSTANTS: &str = "BATON_.*|RTE_MAX_LCORE|RTE_PKTMBUF_HEADROOM|RTE_ETH_NAME_MAX_LEN|RTE_ETH_DEV_NO_OWNER|\
                         RTE_ETH_RETA_GROUP_SIZE|RTE_MAX_ETHPORTS|RTE_VER_YEAR|RTE_VER_MONTH|RING_F_EXACT_SZ|RING_F_SP_ENQ|RING_F_SC_DEQ";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=csrc/wrapper.h");

    let dpdk = find_dpdk();
    check_libclang();

    let out = PathBuf::from(env::var("OUT_DIR").unwrap_or_else(|_| stop("cargo did not set OUT_DIR")));
    let wrappers = out.join("static_inline.c");
    let mut bindings = bindgen::Builder::default()
        .header("csrc/wrapper.h")
        .clang_args(&dpdk.cflags)
        .use_core()
        .rust_edition(bindgen::RustEdition::Edition2024)
        .allowlist_var(CONSTANTS)
        .allowlist_type("baton_mbuf_layout")
        .default_enum_style(bindgen::EnumVariation::ModuleConsts)
        .prepend_enum_name(false)
        .constified_enum("baton_mbuf_layout")
        // An mbuf is read through the offsets of wrapper.h only, and these two nest packed in aligned types.
        .opaque_type("rte_mbuf|rte_mempool|rte_ring|rte_device")
        .layout_tests(false)
        .generate_comments(false)
        .merge_extern_blocks(true)
        .wrap_static_fns(true)
        .wrap_static_fns_path(&wrappers)
        .wrap_static_fns_suffix("__wrapped");
    for function in FUNCTIONS {
        bindings = bindings.allowlist_function(function);
    }
    let bindings = bindings.generate().unwrap_or_else(|error| {
        stop(&format!("bindgen could not read the DPDK headers: {error}\ninstall them with: apt-get install libdpdk-dev libclang-dev"))
    });
    if let Err(error) = bindings.write_to_file(out.join("bindings.rs")) {
        stop(&format!("cannot write bindings.rs: {error}"));
    }

    let mut c = cc::Build::new();
    c.file(&wrappers).include(".").opt_level(3).warnings(false).flag("-Werror=implicit-function-declaration");
    for flag in &dpdk.cflags {
        c.flag(flag);
    }
    if let Err(error) = c.try_compile("baton_static_inline") {
        stop(&format!(
            "cannot compile the wrappers of DPDK's inline functions: {error}\ninstall a compiler with: apt-get install build-essential"
        ));
    }
    // The ring driver gives tests ports made of rings, and a bond is told which member is to carry its traffic. These are drivers, hence not in
    // libdpdk.pc, but part of libdpdk-dev.
    println!("cargo:rustc-link-lib=rte_net_ring");
    println!("cargo:rustc-link-lib=rte_net_bond");
}

struct Dpdk {
    cflags: Vec<String>,
}

/// Asks pkg-config for libdpdk; prints the link flags for cargo as a side effect.
fn find_dpdk() -> Dpdk {
    let pkg_config = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".into());
    if Command::new(&pkg_config).arg("--version").output().is_err() {
        stop(&format!("`{pkg_config}` cannot be run\n{INSTALL}"));
    }
    let library = pkg_config::Config::new()
        .atleast_version(OLDEST_DPDK)
        .probe("libdpdk")
        .unwrap_or_else(|error| stop(&format!("{error}\nlibdpdk {OLDEST_DPDK} or newer was not found\n{INSTALL}")));
    // Another DPDK in the same place needs new bindings.
    for header in library.include_paths.iter().map(|path| path.join("rte_version.h")) {
        if header.exists() {
            println!("cargo:rerun-if-changed={}", header.display());
        }
    }
    // The crate parses only -I and -D; DPDK also needs `-include rte_config.h` and its -march.
    let output = Command::new(&pkg_config)
        .args(["--cflags", "libdpdk"])
        .output()
        .unwrap_or_else(|error| stop(&format!("`{pkg_config} --cflags libdpdk`: {error}")));
    let cflags = String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect();
    Dpdk { cflags }
}

/// bindgen panics with a long message when libclang is absent; say what to install instead.
fn check_libclang() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let found = std::panic::catch_unwind(bindgen::clang_version);
    std::panic::set_hook(hook);
    if let Err(error) = found {
        let cause = error.downcast_ref::<String>().cloned().unwrap_or_default();
        stop(&format!("{cause}\nlibclang was not found\n{INSTALL}"));
    }
}

fn stop(message: &str) -> ! {
    eprintln!("\nerror: dpdk-sys: {message}\n");
    exit(1)
}
