//! The end of a plugin's process, by itself or by the scheduler, and how it ended.

use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process_group, pidfd_open, waitid,
    waitpid,
};
use tracing::warn;

use super::{PluginProcess, poll_for};
use crate::plugin::fault::{Fault, Stage};

/// How long a process has to end by itself once it is told to, or has closed its connection.
const GRACE: Duration = Duration::from_millis(100);
/// How long a process that was killed has to be gone. One that a debugger holds is not, until that lets go of it.
const LAST: Duration = Duration::from_secs(1);
/// How a process ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    ByItself(ExitStatus),
    Killed,
}

impl PluginProcess {
    /// How the process ended, if it did so while nothing was asked of it.
    pub fn ended_between(&mut self) -> Option<Fault> {
        if self.ended.is_none() {
            // Only looked at: its number has to stay its group's until that has been ended too.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            match waitid(WaitId::Pid(self.pid()?), options) {
                Ok(None) | Err(Errno::INTR) => return None,
                Ok(Some(_)) => {}
                Err(error) => {
                    return Some(Fault::System {
                        stage: Stage::Waiting,
                        source: error.into(),
                    });
                }
            }
        }
        Some(self.hung_up(Stage::Waiting))
    }

    /// What became of a process that closed its end of the channel.
    pub(super) fn hung_up(&mut self, stage: Stage) -> Fault {
        match self.end(GRACE) {
            End::ByItself(status) => Fault::ended(status, stage),
            End::Killed => Fault::HungUp { stage },
        }
    }

    /// Ends the process and everything in its group, after giving it this long to end by itself.
    pub(super) fn end(&mut self, grace: Duration) -> End {
        if let Some(end) = self.ended {
            return end;
        }
        let pid = self.pid();
        let by_itself = !grace.is_zero() && pid.is_some_and(|pid| ends_within(pid, grace));
        if let Some(pid) = pid {
            // The number stays the group's as long as the process has not been waited for.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        // An error means that it has ended already.
        let _ = self.child.kill();
        let end = match self.last_status() {
            // Ended before it was killed, if only just.
            Some(status) if by_itself || status.signal() != Some(Signal::KILL.as_raw()) => {
                End::ByItself(status)
            }
            _ => End::Killed,
        };
        self.output.finish();
        self.ended = Some(end);
        end
    }

    /// How a process ended that was killed. One that someone else holds on to is not waited for.
    fn last_status(&mut self) -> Option<ExitStatus> {
        let begun = Instant::now();
        let pid = self.pid()?;
        ends_within(pid, LAST);
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if begun.elapsed() < LAST => std::thread::sleep(Duration::from_millis(1)),
                Ok(None) => break,
                Err(_) => return None,
            }
        }
        warn!(
            pid = pid.as_raw_pid(),
            "a plugin's process was killed and is not gone yet: something holds it, a debugger perhaps"
        );
        // Nobody has to wait for this thread. Without it the process would stay a zombie.
        let reaper = std::thread::Builder::new().name("reaper".to_owned());
        let _ = reaper.spawn(move || waitpid(Some(pid), WaitOptions::empty()));
        None
    }

    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }
}

/// A process that is told to end may finish what it does, shortly; its policy is destroyed on the way.
impl Drop for PluginProcess {
    fn drop(&mut self) {
        let _ = self.channel.shutdown(Shutdown::Both);
        self.end(GRACE);
    }
}

/// Whether a process, which is not waited for by this, ends within a time. On a kernel that cannot tell: no.
fn ends_within(pid: Pid, time: Duration) -> bool {
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
        return false;
    };
    let mut watched = [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
    poll_for(&mut watched, time).is_ok() && !watched[0].revents().is_empty()
}
