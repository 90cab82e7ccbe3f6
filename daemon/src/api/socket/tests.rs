//! What may be at the place of the socket, and what becomes of it.

use std::{
    fs::File,
    os::unix::net::{UnixListener as StdListener, UnixStream},
};

use tempfile::TempDir;

use super::*;

fn place() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("api.sock");
    (dir, path)
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[tokio::test]
async fn owner_and_group_may_connect_and_the_socket_goes_with_the_guard() {
    let (_dir, path) = place();
    let (listener, guard) = bind(&path, None).unwrap();
    assert_eq!((guard.path(), mode(&path)), (path.as_path(), 0o660));
    let _client = UnixStream::connect(&path).unwrap();
    listener.accept().await.unwrap();
    drop(guard);
    assert!(!path.exists());
}

#[tokio::test]
async fn only_the_last_directory_is_made() {
    let (dir, _) = place();
    let path = dir.path().join("run/api.sock");
    let (_listener, _guard) = bind(&path, None).unwrap();
    assert_eq!(mode(path.parent().unwrap()), 0o750);
    let deep = dir.path().join("a/b/api.sock");
    assert!(matches!(bind(&deep, None), Err(SocketError::Directory { .. })));
    assert!(!dir.path().join("a").exists());
}

#[tokio::test]
async fn a_group_gets_the_socket_and_the_directory() {
    let (dir, _) = place();
    let path = dir.path().join("run/api.sock");
    let own = fs::metadata(dir.path()).unwrap().gid();
    let (_listener, _guard) = bind(&path, Some(&own.to_string())).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().gid(), own);
    let (_dir, path) = place();
    assert!(matches!(bind(&path, Some("no-such-group-here")), Err(SocketError::NoSuchGroup { .. })));
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_that_somebody_answers_on_is_left_alone() {
    let (_dir, path) = place();
    let (listener, _guard) = bind(&path, None).unwrap();
    let error = bind(&path, None).unwrap_err();
    assert!(matches!(error, SocketError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()));
    let _client = UnixStream::connect(&path).unwrap();
    listener.accept().await.unwrap();
}

#[tokio::test]
async fn a_full_queue_counts_as_answered() {
    let (_dir, path) = place();
    let socket = unix_socket().unwrap();
    socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    socket.listen(0).unwrap();
    let waiting = unix_socket().unwrap();
    waiting.connect(&SockAddr::unix(&path).unwrap()).unwrap();
    assert!(matches!(bind(&path, None), Err(SocketError::InUse { .. })));
}

#[tokio::test]
async fn the_socket_of_a_dead_daemon_is_replaced() {
    let (_dir, path) = place();
    drop(StdListener::bind(&path).unwrap());
    assert!(UnixStream::connect(&path).is_err(), "nobody listens");
    let (_listener, _guard) = bind(&path, None).unwrap();
    UnixStream::connect(&path).unwrap();
}

#[tokio::test]
async fn a_symbolic_link_is_refused_wherever_it_leads() {
    let (dir, path) = place();
    let target = dir.path().join("target");
    std::os::unix::fs::symlink(&target, &path).unwrap();
    assert!(matches!(bind(&path, None), Err(SocketError::Symlink { .. })));
    assert!(!target.exists());
    drop(StdListener::bind(&target).unwrap());
    assert!(matches!(bind(&path, None), Err(SocketError::Symlink { .. })));
    assert!(target.exists() && path.is_symlink());
}

#[tokio::test]
async fn what_is_not_a_socket_is_never_deleted() {
    let (dir, path) = place();
    File::create(&path).unwrap();
    assert!(matches!(bind(&path, None), Err(SocketError::NotASocket { .. })));
    assert!(path.is_file());
    fs::create_dir(dir.path().join("directory")).unwrap();
    assert!(matches!(bind(&dir.path().join("directory"), None), Err(SocketError::NotASocket { .. })));
}

#[test]
fn a_long_path_is_refused_before_anything_is_made() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x".repeat(MAX_SOCKET_PATH_BYTES)).join("s");
    let error = bind(&path, None).unwrap_err();
    assert!(matches!(error, SocketError::TooLong { bytes, .. } if bytes > MAX_SOCKET_PATH_BYTES));
    assert!(error.to_string().contains("set node.socket to a shorter one"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn the_longest_path_works() {
    let dir = TempDir::new().unwrap();
    let name_bytes = MAX_SOCKET_PATH_BYTES - dir.path().as_os_str().as_bytes().len() - 1;
    let (_listener, _guard) = bind(&dir.path().join("x".repeat(name_bytes)), None).unwrap();
}

#[tokio::test]
async fn a_place_that_cannot_be_written_to_says_what_to_do() {
    // Also root cannot make files there.
    let error = bind(Path::new("/proc/api.sock"), None).unwrap_err();
    assert!(matches!(error, SocketError::Bind { .. }), "{error:?}");
    assert!(error.to_string().ends_with("set node.socket to a directory that this user may write to"));
}

#[tokio::test]
async fn the_guard_leaves_the_socket_of_another() {
    let (_dir, path) = place();
    let (listener, guard) = bind(&path, None).unwrap();
    fs::remove_file(&path).unwrap();
    drop(listener);
    let (_listener, _other) = bind(&path, None).unwrap();
    drop(guard);
    UnixStream::connect(&path).unwrap();
}

#[tokio::test]
async fn a_directory_in_which_others_could_put_a_socket_of_their_own_is_refused() {
    let (temp, _) = place();
    let (above, dir) = (temp.path().join("above"), temp.path().join("above/run"));
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join("api.sock");
    let set = |dir: &Path, mode| fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();
    for mode in [0o777, 0o1777, 0o702] {
        set(&dir, mode);
        let refused = bind(&path, None).unwrap_err();
        assert!(
            matches!(&refused, SocketError::OpenDirectory { mode: found, .. } if *found == mode),
            "{refused}"
        );
        assert!(!path.exists());
    }
    set(&dir, 0o755);
    set(&above, 0o777);
    assert!(matches!(bind(&path, None), Err(SocketError::OpenDirectory { mode: 0o777, .. })));
    set(&above, 0o1777);
    drop(bind(&path, None).unwrap());
}

#[tokio::test]
async fn what_another_user_made_where_the_socket_should_be_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (temp, _) = place();
    let path = temp.path().join("run/api.sock");
    fs::create_dir(temp.path().join("run")).unwrap();
    drop(StdListener::bind(&path).unwrap());
    std::os::unix::fs::lchown(&path, Some(61_000), None).unwrap();
    assert!(matches!(bind(&path, None), Err(SocketError::Foreign { uid: 61_000, .. })));
    assert!(path.exists());
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::lchown(temp.path().join("run"), Some(61_000), None).unwrap();
    assert!(matches!(bind(&path, None), Err(SocketError::ForeignDirectory { uid: 61_000, .. })));
}
