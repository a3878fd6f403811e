use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use axum::routing::get;
use tokio::sync::oneshot;

use super::*;

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run/baton.sock");
    (folder, path)
}

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

async fn ask(path: PathBuf) -> String {
    tokio::task::spawn_blocking(move || {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn the_api_answers_on_both_sockets_until_the_end() {
    let (_folder, path) = folder();
    let entrance = Entrance { listen: Some("127.0.0.1:0".parse().unwrap()), ..Entrance::at(&path) };
    let listening = Listening::bind(&entrance).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let address = listening.address().unwrap();
    let (stop, stopping) = oneshot::channel::<()>();
    let serving = tokio::spawn(listening.serve(hello(), Router::new(), async { drop(stopping.await) }));
    assert!(ask(path.clone()).await.ends_with("hello"));
    let over_tcp = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    assert!(over_tcp.await.unwrap().ends_with("hello"));
    // An idle connection must not hold up the end.
    let _idle = UnixStream::connect(&path).unwrap();
    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(5), serving).await.unwrap().unwrap().unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let (_folder, path) = folder();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let listening = Listening::bind(&Entrance::at(&path)).unwrap();
    let serving = tokio::spawn(listening.serve(hello(), Router::new(), std::future::pending()));
    assert!(ask(path.clone()).await.ends_with("hello"));
    serving.abort();
}

#[tokio::test]
async fn a_second_director_on_the_same_socket_is_refused_and_the_first_goes_on() {
    let (_folder, path) = folder();
    let serving = tokio::spawn(Listening::bind(&Entrance::at(&path)).unwrap().serve(hello(), Router::new(), std::future::pending()));
    assert!(matches!(Listening::bind(&Entrance::at(&path)), Err(ServeError::SocketInUse(_))));
    assert!(ask(path.clone()).await.ends_with("hello"));
    serving.abort();
}

#[tokio::test]
async fn a_socket_that_something_else_listens_on_is_left_alone() {
    let (_folder, path) = folder();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert!(matches!(Listening::bind(&Entrance::at(&path)), Err(ServeError::SocketInUse(_))));
    assert!(UnixStream::connect(&path).is_ok());
}

#[tokio::test]
async fn a_file_in_the_sockets_place_is_not_removed() {
    let (_folder, path) = folder();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "precious").unwrap();
    assert!(matches!(Listening::bind(&Entrance::at(&path)), Err(ServeError::NotASocket(_))));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn an_address_in_use_is_named_and_the_socket_is_given_up() {
    let (_folder, path) = folder();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let entrance = Entrance { listen: Some(address), ..Entrance::at(&path) };
    let refused = Listening::bind(&entrance).unwrap_err().to_string();
    assert!(refused.contains(&address.to_string()) && refused.contains("control.listen"), "{refused}");
    assert!(!path.exists());
}
