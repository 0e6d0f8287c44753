//! The socket on which a running daemon takes orders.
//!
//! It lies in the folder of the host's journal, and only the daemon's user may connect to it. One request and one answer go over
//! each connection, as a line of JSON either way. A request becomes an [`Order`] for the loop, which answers between two
//! ticks. Nothing that comes over the socket can keep the loop waiting. Each connection is served by a thread of its own, so that
//! whoever connects and says nothing, or says it byte by byte, keeps nobody waiting either, and is left after two seconds.

use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::debug;

use crate::engine::daemon::{Order, Release, ReleaseError};

/// The socket's name in its folder.
const NAME: &str = "control";
/// No request and no answer is longer, in bytes.
const LONGEST_LINE: usize = 64 * 1024;
/// How many connections are served at once; one more waits for one of them to end.
const MOST_AT_ONCE: usize = 16;
/// How long the other side may take to send or to take a line.
const LINE_PATIENCE: Duration = Duration::from_secs(2);
/// How long the loop may take to come to the next pause between ticks: a sample, at worst, of a host that hangs.
const LOOP_PATIENCE: Duration = Duration::from_secs(45);

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Request {
    Release(Release),
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Answer {
    Released(Vec<u32>),
    Refused(ReleaseError),
    /// The loop did not come to it, or the request was none.
    Failed(String),
}

/// Why a running daemon could not be asked.
#[derive(Debug, Error)]
pub enum ControlError {
    /// No daemon listens.
    #[error("no daemon runs for this host")]
    NoDaemon,
    /// The socket broke, or cannot be made.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// The socket.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The daemon does not do it.
    #[error("the daemon answered: {0}")]
    Failed(String),
    /// The daemon cannot do it.
    #[error(transparent)]
    Refused(#[from] ReleaseError),
}

/// The socket of a running daemon; its file is gone when this is dropped.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
}

impl Control {
    /// Listens in a folder from now on; requests go to `orders`. Whoever calls this holds the folder's lock.
    ///
    /// # Errors
    /// If there can be no socket.
    pub fn listen(folder: &Path, orders: Sender<Order>) -> Result<Self, ControlError> {
        let path = folder.join(NAME);
        let failed = |source| ControlError::Io {
            operation: "listen on",
            path: path.clone(),
            source,
        };
        // An earlier daemon may have been killed.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = shortly(folder, |path| UnixListener::bind(path)).map_err(failed)?;
        // Whatever the mask says with which new files are made.
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed)?;
        std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || accept(&listener, &orders))
            .map_err(failed)?;
        Ok(Self { path })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // The next daemon removes it all the same.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// One of the [`MOST_AT_ONCE`], for as long as its connection is served, however that ends.
struct Turn(Receiver<()>);

impl Drop for Turn {
    fn drop(&mut self) {
        let _ = self.0.try_recv();
    }
}

fn accept(listener: &UnixListener, orders: &Sender<Order>) {
    let (begun, under_way) = bounded(MOST_AT_ONCE);
    for stream in listener.incoming() {
        let served = stream.and_then(|stream| {
            // Waits while the channel is full. It cannot be closed: its other end is here.
            let _ = begun.send(());
            let (turn, orders) = (Turn(under_way.clone()), orders.clone());
            std::thread::Builder::new()
                .name("control".to_owned())
                .spawn(move || {
                    let _turn = turn;
                    if let Err(error) = serve(&stream, &orders) {
                        came_to_nothing(&error);
                    }
                })
        });
        if let Err(error) = served {
            came_to_nothing(&error);
            // Without descriptors, accepting fails at once, again and again.
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn came_to_nothing(error: &io::Error) {
    debug!("a request on the control socket came to nothing: {error}");
}

fn serve(stream: &UnixStream, orders: &Sender<Order>) -> io::Result<()> {
    let line = read_line(stream, LINE_PATIENCE)?;
    let answer = match serde_json::from_str(&line) {
        Ok(Request::Release(release)) => ask_loop(release, orders),
        Err(error) => Answer::Failed(format!("not a request: {error}")),
    };
    write_line(stream, &answer)
}

fn ask_loop(release: Release, orders: &Sender<Order>) -> Answer {
    let (sender, answer) = bounded(1);
    if orders.send(Order::Release(release, sender)).is_err() {
        return Answer::Failed("the daemon is stopping".to_owned());
    }
    match answer.recv_timeout(LOOP_PATIENCE) {
        Ok(Ok(vcpus)) => Answer::Released(vcpus),
        Ok(Err(refusal)) => Answer::Refused(refusal),
        Err(_) => {
            Answer::Failed("it did not come to it: the host may hang, or the daemon is stopping".to_owned())
        }
    }
}

/// Names the socket of a folder by a path that is short: the kernel takes no more than 107 bytes for it, and the operator may
/// have named a deep folder.
fn shortly<T>(folder: &Path, use_path: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let folder = std::fs::File::open(folder)?;
    use_path(
        &Path::new("/proc/self/fd")
            .join(folder.as_raw_fd().to_string())
            .join(NAME),
    )
}

fn connect(folder: &Path) -> io::Result<UnixStream> {
    shortly(folder, |path| UnixStream::connect(path))
}

/// Whether a daemon of this folder runs.
pub fn is_answered(folder: &Path) -> bool {
    connect(folder).is_ok()
}

/// Has the daemon of a folder release vCPUs; gives the numbers of those that were left alone until now.
///
/// # Errors
/// If there is no daemon, or it does not do it.
pub fn release(folder: &Path, release: &Release) -> Result<Vec<u32>, ControlError> {
    let path = folder.join(NAME);
    let stream = connect(folder).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ControlError::NoDaemon,
        _ => ControlError::Io {
            operation: "connect to",
            path: path.clone(),
            source: error,
        },
    })?;
    let exchange = || -> io::Result<Answer> {
        write_line(&stream, &Request::Release(release.clone()))?;
        let line = read_line(&stream, LOOP_PATIENCE + LINE_PATIENCE)?;
        serde_json::from_str(&line).map_err(io::Error::from)
    };
    let answer = exchange().map_err(|source| ControlError::Io {
        operation: "ask the daemon at",
        path: path.clone(),
        source,
    })?;
    match answer {
        Answer::Released(vcpus) => Ok(vcpus),
        Answer::Refused(refusal) => Err(refusal.into()),
        Answer::Failed(why) => Err(ControlError::Failed(why)),
    }
}

/// The line that the other side sends; the whole of it comes within `patience`, or it does not count.
fn read_line(mut stream: &UnixStream, patience: Duration) -> io::Result<String> {
    let until = Instant::now() + patience;
    let mut line = Vec::new();
    let mut part = [0; 4096];
    while !line.contains(&b'\n') {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "no whole line came in time",
            ));
        }
        if line.len() > LONGEST_LINE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long"));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part) {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the other side sent no whole line",
                ));
            }
            Ok(length) => line.extend_from_slice(&part[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    String::from_utf8(line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn write_line(mut stream: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.set_write_timeout(Some(LINE_PATIENCE))?;
    stream.write_all(&line)
}

#[cfg(test)]
mod tests;
