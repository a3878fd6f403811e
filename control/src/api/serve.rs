//! The sockets that the API is reached by.

mod connection;
mod listen;

use std::fs::{self, File, Permissions};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Group;
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::watch;

use super::access::Access;
use super::door::Door;
use super::tls::{Tls, TlsFiles};
use listen::{Answering, Listener, take};

/// Connections that wait to be accepted on a TCP address.
const BACKLOG: u32 = 256;

/// How long requests under way may take to finish once the end has come.
const GRACE: Duration = Duration::from_secs(1);

/// Why the API cannot be reached the way it was to be.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another process answers on the socket, or holds its lock.
    #[error("{} is in use: another director runs with this socket; stop it or set control.socket to another path", .0.display())]
    SocketInUse(PathBuf),
    /// Something that is not a socket has the socket's name.
    #[error("{} is not a socket: remove it or set control.socket to another path", .0.display())]
    NotASocket(PathBuf),
    /// The system refused the socket.
    #[error("cannot {call} {}: {cause}", path.display())]
    Socket {
        /// What was tried.
        call: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The system refused a TCP address.
    #[error("cannot listen on {address} ({key}): {cause}")]
    Address {
        /// The key that it is from.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// There is no such group.
    #[error("there is no group {0} (control.socket_group)")]
    NoGroup(String),
    /// The files of TLS cannot be used.
    #[error("control.tls: {0}")]
    Tls(String),
    /// The audit log cannot be opened.
    #[error("cannot write to {} (control.audit): {cause}", path.display())]
    Audit {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// Where the API is reached, and by whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entrance {
    /// The unix socket; whoever may open it may do everything.
    pub socket: PathBuf,
    /// Its mode.
    pub mode: u32,
    /// Its group; that of the process when `None`.
    pub group: Option<String>,
    /// The TCP address, if any.
    pub listen: Option<SocketAddr>,
    /// The TLS of that address; without it, it is on loopback.
    pub tls: Option<TlsFiles>,
    /// Who may come over that address.
    pub access: Access,
    /// The address for `/metrics`, `/livez` and `/readyz` alone, open to everybody, if any.
    pub metrics: Option<SocketAddr>,
    /// The file of the audit log; with the log when `None`.
    pub audit: Option<PathBuf>,
}

impl Entrance {
    /// The unix socket alone, of mode 0660.
    pub fn at(socket: &Path) -> Self {
        let (socket, mode) = (socket.to_owned(), 0o660);
        Self { socket, mode, group: None, listen: None, tls: None, access: Access::default(), metrics: None, audit: None }
    }
}

/// Sockets that are bound and not yet served, so that a start can fail before anything else is touched.
#[derive(Debug)]
pub struct Listening {
    unix: UnixListener,
    tcp: Option<TcpListener>,
    metrics: Option<TcpListener>,
    tls: Option<Arc<Tls>>,
    door: Arc<Door>,
    guard: SocketGuard,
}

/// Keeps the lock beside the socket, and removes the socket at the end.
#[derive(Debug)]
struct SocketGuard {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        // If it is gone already, there is nothing left to do.
        drop(fs::remove_file(&self.path));
    }
}

impl Listening {
    /// Binds the sockets, and reads and opens the files.
    ///
    /// A socket that nobody listens on any more is replaced. Must be called inside a tokio runtime.
    pub fn bind(entrance: &Entrance) -> Result<Self, ServeError> {
        let Entrance { listen, metrics, tls, access, audit, .. } = entrance.clone();
        let tls = tls.map(|files| Tls::read(files, !access.tokens.is_empty()).map(Arc::new)).transpose().map_err(ServeError::Tls)?;
        let door = Door::new(access, audit.as_deref());
        let door = door.map_err(|cause| ServeError::Audit { path: audit.unwrap_or_default(), cause })?;
        let (unix, guard) = bind_unix(entrance)?;
        let tcp = bind_tcp(listen, "control.listen")?;
        let metrics = bind_tcp(metrics, "control.metrics_listen")?;
        Ok(Self { unix, tcp, metrics, tls, door: Arc::new(door), guard })
    }

    /// The TCP address that was bound; tells the port where port 0 was asked for.
    pub fn address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|tcp| tcp.local_addr().ok())
    }

    /// What a reload does: reads the certificates again, and opens the audit log anew. Reads files.
    pub fn renewal(&self) -> Arc<dyn Fn() + Send + Sync> {
        let (tls, door) = (self.tls.clone(), Arc::clone(&self.door));
        Arc::new(move || renew(tls.as_deref(), &door))
    }

    /// Serves until `shutdown`, gives requests under way a second to finish, and removes the socket.
    ///
    /// `open` is what everybody gets at the address for metrics.
    pub async fn serve(self, routes: Router, open: Router, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Self { unix, tcp, metrics, tls, door, guard } = self;
        let (stop, stopping) = watch::channel(false);
        let routes = door.guard(routes);
        let inner = Answering { routes, tls: None, stopping: stopping.clone() };
        let on_unix = take(Listener::Unix(unix), inner.clone());
        let on_tcp = maybe(tcp, Answering { tls, ..inner });
        let on_metrics = maybe(metrics, Answering { routes: open, tls: None, stopping });
        let serving = async { tokio::join!(on_unix, on_tcp, on_metrics) };
        let stopped = async {
            shutdown.await;
            stop.send_replace(true);
            tokio::time::sleep(GRACE).await;
        };
        // Serving ends by itself once it was told to stop and no request is left.
        tokio::select! {
            _ = serving => {}
            () = stopped => {}
        }
        drop(guard);
        Ok(())
    }
}

fn bind_tcp(address: Option<SocketAddr>, key: &'static str) -> Result<Option<TcpListener>, ServeError> {
    let Some(address) = address else { return Ok(None) };
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        // The director's own addresses are there only once its ports are.
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::IpFreebind, &true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bind().map(Some).map_err(|cause: io::Error| ServeError::Address { key, address, cause })
}

async fn maybe(listener: Option<TcpListener>, answering: Answering) {
    if let Some(listener) = listener {
        take(Listener::Tcp(listener), answering).await;
    }
}

fn renew(tls: Option<&Tls>, door: &Door) {
    match tls.map(Tls::read_again) {
        Some(Ok(())) => tracing::info!("the API's certificates were read again"),
        Some(Err(why)) => tracing::error!("the API's certificates stay as they were: {why}"),
        None => {}
    }
    if let Err(why) = door.audit.reopen() {
        tracing::error!("the audit log goes on in the old file: {why}");
    }
}

fn bind_unix(entrance: &Entrance) -> Result<(UnixListener, SocketGuard), ServeError> {
    let path = entrance.socket.as_path();
    let fail = |call| move |cause| ServeError::Socket { call, path: path.to_owned(), cause };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(fail("make the folder of"))?;
    }
    // Two directors that start at once must not both find a stale socket: only the holder of the lock may look.
    let lock = File::create(beside(path, "lock")).map_err(fail("lock"))?;
    let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|_| ServeError::SocketInUse(path.to_owned()))?;
    match fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => return Err(ServeError::NotASocket(path.to_owned())),
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => return Err(ServeError::SocketInUse(path.to_owned())),
        _ => {}
    }
    // Under another name until its mode is set, then in one step in the place of what was there.
    let fresh = beside(path, "new");
    match fs::remove_file(&fresh) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(fail("remove the old")(cause)),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh).map_err(fail("listen on"))?;
    // Its own user alone may open it until the group is right.
    fs::set_permissions(&fresh, Permissions::from_mode(0o600)).map_err(fail("set the mode of"))?;
    if let Some(name) = &entrance.group {
        let group = Group::from_name(name).ok().flatten().ok_or_else(|| ServeError::NoGroup(name.clone()))?;
        std::os::unix::fs::chown(&fresh, None, Some(group.gid.as_raw())).map_err(fail("set the group of"))?;
    }
    fs::set_permissions(&fresh, Permissions::from_mode(entrance.mode)).map_err(fail("set the mode of"))?;
    fs::rename(&fresh, path).map_err(fail("name"))?;
    Ok((listener, SocketGuard { path: path.to_owned(), _lock: lock }))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(format!(".{suffix}"));
    name.into()
}

#[cfg(test)]
mod tests;
