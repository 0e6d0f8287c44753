//! Requests on a real socket, and what is none.

use std::thread;

use crossbeam_channel::unbounded;
use tempfile::TempDir;

use super::*;

fn asked(domain: &str) -> Release {
    Release {
        domain: domain.to_owned(),
        vcpu: Some(1),
    }
}

/// A socket in a folder of its own, and what comes to the loop.
struct Listening {
    folder: TempDir,
    orders: Receiver<Order>,
    control: Control,
}

impl Listening {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (sender, orders) = unbounded();
        let control = Control::listen(folder.path(), sender).expect("listening");
        Self {
            folder,
            orders,
            control,
        }
    }

    fn connect(&self) -> UnixStream {
        connect(self.folder.path()).expect("connected")
    }
}

/// Says what is no request, and is told so.
fn is_told_that_it_is_none(mut stream: &UnixStream, text: &str, patience: Duration) {
    stream.write_all(text.as_bytes()).expect("written");
    let answer = read_line(stream, patience).expect("an answer");
    assert!(answer.contains("not a request"), "{text}: {answer}");
}

#[test]
fn a_request_gets_to_the_loop_and_its_answer_back() {
    let Listening {
        folder,
        orders,
        control,
    } = Listening::start();
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
    let listening = Listening::start();
    for text in ["nonsense\n", "{\"release\":{}}\n", "{\"other\":1}\n", "\n"] {
        is_told_that_it_is_none(&listening.connect(), text, LINE_PATIENCE);
    }
    assert!(listening.orders.is_empty());
}

#[test]
fn nobody_else_may_connect() {
    let listening = Listening::start();
    let found = std::fs::metadata(listening.folder.path().join(NAME)).expect("it is there");
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
}

/// While one says nothing, another one is answered.
#[test]
fn who_says_nothing_keeps_nobody_waiting() {
    let listening = Listening::start();
    let answered_first = || {
        let (mut silent, last) = (listening.connect(), listening.connect());
        is_told_that_it_is_none(&last, "nonsense\n", Duration::from_secs(60));
        silent.set_nonblocking(true).expect("set");
        // Its end, if it was left by now.
        let left = silent.read(&mut [0]).map_err(|error| error.kind());
        left == Err(io::ErrorKind::WouldBlock)
    };
    // A machine that stands still for two seconds leaves the silent one first, but not every time.
    assert!(
        (0..10).any(|_| answered_first()),
        "answered after the silent one was left"
    );
}

/// One says nothing and one too little at a time: neither is waited for without an end.
#[test]
fn who_does_not_come_to_the_point_is_left() {
    let listening = Listening::start();
    let (mut silent, mut slow) = (listening.connect(), listening.connect());
    let writing = thread::spawn(move || {
        while slow.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
    });
    silent
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("set");
    assert_eq!(silent.read(&mut [0]).expect("left"), 0);
    writing.join().expect("left, so that writing failed");
}

/// One more than are served at once has its turn when the others have had theirs.
#[test]
fn however_many_connect_each_has_its_turn() {
    let listening = Listening::start();
    let silent: Vec<UnixStream> = std::iter::repeat_with(|| listening.connect())
        .take(2 * MOST_AT_ONCE)
        .collect();
    is_told_that_it_is_none(&listening.connect(), "nonsense\n", Duration::from_secs(60));
    drop(silent);
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
