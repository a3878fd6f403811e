//! The sockets that the API is reached by.

use std::fs::{self, File, Permissions};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use nix::fcntl::{Flock, FlockArg};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::director::Actor;

/// The most connections at once on each socket; more wait to be accepted.
const CONNECTIONS: usize = 256;

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
    /// The system refused the TCP address.
    #[error("cannot listen on {address} (control.listen): {cause}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// Serving ended with an error.
    #[error("the API stopped: {0}")]
    Stopped(io::Error),
}

/// Sockets that are bound and not yet served, so that a start can fail before anything else is touched.
#[derive(Debug)]
pub struct Listening {
    unix: UnixListener,
    tcp: Option<TcpListener>,
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
    /// Binds the unix socket, with mode 0660, and the TCP address if there is one.
    ///
    /// A socket that nobody listens on any more is replaced. Must be called inside a tokio runtime.
    pub async fn bind(socket: &Path, listen: Option<SocketAddr>) -> Result<Self, ServeError> {
        let (unix, guard) = bind_unix(socket)?;
        let tcp = match listen {
            Some(address) => Some(TcpListener::bind(address).await.map_err(|cause| ServeError::Address { address, cause })?),
            None => None,
        };
        Ok(Self { unix, tcp, guard })
    }

    /// The TCP address that was bound; tells the port where port 0 was asked for.
    pub fn address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|tcp| tcp.local_addr().ok())
    }

    /// Serves until `shutdown`, gives requests under way a second to finish, and removes the socket.
    pub async fn serve(self, router: Router, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Self { unix, tcp, guard } = self;
        let (stop, stopping) = watch::channel(false);
        let until = |mut stopping: watch::Receiver<bool>| async move {
            // An error means that the sender is gone: then it is over, too.
            drop(stopping.wait_for(|stop| *stop).await);
        };
        let on_unix = axum::serve(Limited::new(unix), router.clone().into_make_service_with_connect_info::<Actor>())
            .with_graceful_shutdown(until(stopping.clone()));
        let on_tcp = async {
            match tcp {
                Some(tcp) => {
                    axum::serve(Limited::new(tcp), router.into_make_service_with_connect_info::<Actor>())
                        .with_graceful_shutdown(until(stopping.clone()))
                        .await
                }
                None => Ok(()),
            }
        };
        let serving = async { tokio::try_join!(async { on_unix.await }, on_tcp) };
        let stopped = async {
            shutdown.await;
            stop.send_replace(true);
            tokio::time::sleep(GRACE).await;
        };
        // Serving ends by itself once it was told to stop and no request is left.
        let outcome = tokio::select! {
            outcome = serving => outcome.map(|_| ()).map_err(ServeError::Stopped),
            () = stopped => Ok(()),
        };
        drop(guard);
        outcome
    }
}

/// Binds and serves in one.
pub async fn serve(
    router: Router,
    socket: &Path,
    listen: Option<SocketAddr>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    Listening::bind(socket, listen).await?.serve(router, shutdown).await
}

fn bind_unix(path: &Path) -> Result<(UnixListener, SocketGuard), ServeError> {
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
    fs::set_permissions(&fresh, Permissions::from_mode(0o660)).map_err(fail("set the mode of"))?;
    fs::rename(&fresh, path).map_err(fail("name"))?;
    Ok((listener, SocketGuard { path: path.to_owned(), _lock: lock }))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(format!(".{suffix}"));
    name.into()
}

/// A listener that holds no more than [`CONNECTIONS`] connections.
pub(super) struct Limited<L> {
    listener: L,
    free: Arc<Semaphore>,
}

impl<L> Limited<L> {
    fn new(listener: L) -> Self {
        Self { listener, free: Arc::new(Semaphore::new(CONNECTIONS)) }
    }
}

impl<L: Listener> Listener for Limited<L> {
    type Io = Held<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed; were it, connections would go on without a limit.
        let permit = Arc::clone(&self.free).acquire_owned().await.ok();
        let (io, address) = self.listener.accept().await;
        (Held { io, _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection with its place among those allowed.
pub(super) struct Held<I> {
    io: I,
    _permit: Option<OwnedSemaphorePermit>,
}

impl<I> Held<I> {
    pub(super) fn get(&self) -> &I {
        &self.io
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Held<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Held<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
