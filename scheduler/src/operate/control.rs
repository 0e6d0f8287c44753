//! The socket on which a running daemon takes orders.
//!
//! It lies in the folder of the host's journal, and only the daemon's user may connect to it. One request and one answer go over
//! each connection, as a line of JSON either way. A request becomes an [`Order`] for the loop, which answers between two
//! ticks. Nothing that comes over the socket can keep the loop waiting; whoever connects and says nothing, or says it byte by
//! byte, keeps others waiting for two seconds.

use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::debug;

use crate::engine::daemon::{Order, Release, ReleaseError};

/// The socket's name in its folder.
const NAME: &str = "control";
/// No request and no answer is longer, in bytes.
const LONGEST_LINE: usize = 64 * 1024;
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
            .spawn(move || {
                for stream in listener.incoming() {
                    let served = stream.and_then(|stream| serve(&stream, &orders));
                    if let Err(error) = served {
                        debug!("a request on the control socket came to nothing: {error}");
                        // Without descriptors, accepting fails at once, again and again.
                        std::thread::sleep(Duration::from_millis(10));
                    }
                }
            })
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

/// Has the daemon of a folder release vCPUs; gives the numbers of those that were left alone until now.
///
/// # Errors
/// If there is no daemon, or it does not do it.
pub fn release(folder: &Path, release: &Release) -> Result<Vec<u32>, ControlError> {
    let path = folder.join(NAME);
    let stream = shortly(folder, |path| UnixStream::connect(path)).map_err(|error| match error.kind() {
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
mod tests {
    use std::thread;

    use crossbeam_channel::unbounded;

    use super::*;

    fn asked(domain: &str) -> Release {
        Release {
            domain: domain.to_owned(),
            vcpu: Some(1),
        }
    }

    #[test]
    fn a_request_gets_to_the_loop_and_its_answer_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let (sender, orders) = unbounded();
        let control = Control::listen(folder.path(), sender).expect("listening");
        let answering = thread::spawn(move || {
            for order in orders.iter().take(2) {
                let Order::Release(asked, answer) = order else {
                    panic!("another order")
                };
                let outcome = if asked.domain == "a" {
                    Ok(vec![1])
                } else {
                    Err(ReleaseError::NoDomain { domain: asked.domain })
                };
                answer.send(outcome).expect("listening");
            }
        });
        assert_eq!(release(folder.path(), &asked("a")).expect("released"), [1]);
        let refused = release(folder.path(), &asked("b")).expect_err("refused");
        assert_eq!(refused.to_string(), "no domain b runs on this host");
        answering.join().expect("joined");
        drop(control);
        assert!(matches!(
            release(folder.path(), &asked("a")),
            Err(ControlError::NoDaemon)
        ));
    }

    #[test]
    fn what_is_no_request_is_answered_and_costs_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let (sender, orders) = unbounded();
        let _control = Control::listen(folder.path(), sender).expect("listening");
        for text in ["nonsense\n", "{\"release\":{}}\n", "{\"other\":1}\n", "\n"] {
            let mut stream = UnixStream::connect(folder.path().join(NAME)).expect("connected");
            stream.write_all(text.as_bytes()).expect("written");
            let answer = read_line(&stream, LINE_PATIENCE).expect("an answer");
            assert!(answer.contains("not a request"), "{text}: {answer}");
        }
        assert!(orders.is_empty());
    }

    #[test]
    fn nobody_else_may_connect() {
        let folder = tempfile::tempdir().expect("a folder");
        let (sender, _orders) = unbounded();
        let _control = Control::listen(folder.path(), sender).expect("listening");
        let found = std::fs::metadata(folder.path().join(NAME)).expect("it is there");
        assert_eq!(found.permissions().mode() & 0o777, 0o600);
    }

    /// One says nothing and one too little at a time; the next one is served all the same.
    #[test]
    fn who_does_not_come_to_the_point_is_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let (sender, _orders) = unbounded();
        let _control = Control::listen(folder.path(), sender).expect("listening");
        let connect = || UnixStream::connect(folder.path().join(NAME)).expect("connected");
        let (_silent, mut slow, mut last) = (connect(), connect(), connect());
        let writing = thread::spawn(move || {
            while slow.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(100));
            }
        });
        last.write_all(b"nonsense\n").expect("written");
        let answer = read_line(&last, Duration::from_secs(60)).expect("an answer");
        assert!(answer.contains("not a request"), "{answer}");
        writing.join().expect("left, so that writing failed");
    }

    #[test]
    fn a_line_has_an_end() {
        let (mut one, other) = UnixStream::pair().expect("connected");
        let writing = thread::spawn(move || while one.write_all(&[b'x'; 4096]).is_ok() {});
        let error = read_line(&other, Duration::from_secs(60)).expect_err("too long");
        assert_eq!(error.to_string(), "the line is too long");
        drop(other);
        writing.join().expect("joined");
    }
}
