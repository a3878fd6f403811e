//! `ipvsadm -h` and `ipvsadm -v`.

/// What `-v` prints: the version whose behaviour this is, in the words that scripts look for.
pub const VERSION: &str = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)";

/// What `-h` prints.
pub fn text() -> String {
    format!("{VERSION}\n{USAGE}")
}

const USAGE: &str = "\
Usage:
  ipvsadm -A|E SERVICE [-s SCHEDULER] [-p [SECONDS]] [-M MASK] [-b FLAGS] [-o]
                                                add or edit a virtual service
  ipvsadm -D SERVICE                            delete a virtual service
  ipvsadm -C                                    delete all virtual services
  ipvsadm -a|e SERVICE -r SERVER [-g|-i|-m] [-w N] [-x N] [-y N] [TUNNEL]
                                                add or edit a real server
  ipvsadm -d SERVICE -r SERVER                  delete a real server
  ipvsadm -L|l [SERVICE] [LISTING]              list services
  ipvsadm -L -c [-n]                            list connection entries
  ipvsadm -L --timeout                          list timeouts
  ipvsadm --set TCP TCPFIN UDP                  set timeouts in seconds, 0 leaves one as it is
  ipvsadm -Z [SERVICE]                          zero counters
  ipvsadm -S [-n]                               save rules to standard output
  ipvsadm -R                                    restore rules from standard input, all or none
  ipvsadm -h, -v                                help, version

SERVICE:
  -t, --tcp-service HOST:PORT                   a TCP service
  -u, --udp-service HOST:PORT                   a UDP service
  --sctp-service HOST:PORT                      an SCTP service
  -f, --fwmark-service MARK [-6]                packets with a mark, of IPv4 or (-6) of IPv6; `baton marks` gives marks
                                                HOST is an address or a name; IPv6: [ADDRESS]:PORT
SERVER:
  -r, --real-server HOST[:PORT]                 without PORT, the service's

Options of services and real servers:
  -s, --scheduler SCHEDULER                     rr, wrr, lc, wlc (default), lblc, lblcr, dh, sh, sed, nq, fo, ovf, mh or twos
  -p, --persistent [SECONDS]                    a client stays with its real server (360)
  -M, --netmask MASK                            clients that are one: a netmask, for IPv6 a prefix length
  -b, --sched-flags FLAGS                       of sh: sh-port,sh-fallback; of mh: mh-port,mh-fallback
  -o, --ops                                     one-packet scheduling, UDP only
  -g, --gatewaying                              direct routing (default); the port is the service's
  -i, --ipip                                    tunnel; the port is the service's; --tun-type ipip (default), gue or gre
  --tun-port PORT                               UDP port of gue
  --tun-nocsum, --tun-csum, --tun-remcsum       checksum of gue and gre: none (default), whole, remote (gue)
  -m, --masquerading                            masquerading, to the real server's own port
  -w, --weight N                                0 to 2147483647 (default 1); 0: no new connections
  -x, --u-threshold N                           connections at which there are no new ones; 0: no limit
  -y, --l-threshold N                           connections below which there are again

TUNNEL:
  --tun-type ipip|gue|gre                       ipip is the default
  --tun-port N                                  gue: the port
  --tun-nocsum, --tun-csum, --tun-remcsum       gue and gre: without checksum, with one, (gue) with the remote one

LISTING:
  -n, --numeric                                 addresses and ports as numbers
  --stats, --rate                               totals; rates a second
  --thresholds, --persistent-conn, --tun-info   other columns
  -X, --exact                                   numbers in full instead of K, M, G, T
  --nosort                                      in the order of adding

Connections are not synchronized: --start-daemon is refused, --stop-daemon finds no daemon. --pe finds no engine.

Examples:
  ipvsadm -A -t 10.10.24.88:80 -s rr
  ipvsadm -a -t 10.10.24.88:80 -r 10.10.24.21 -g -w 2
  ipvsadm -ln
  ipvsadm-save -n > rules; ipvsadm-restore < rules
";
