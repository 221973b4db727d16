//! Threads that go on until they are told to stop.

use std::io::{PipeReader, PipeWriter, Write as _};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A thread that ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Worker {
    /// What is amiss when the thread has ended by itself.
    without: &'static str,
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts a thread of that name, which runs `work`. It must return when there is something to
    /// read in the pipe, as [`has_ended`] tells; `without` says what is amiss when it fails.
    pub(crate) fn start(
        name: &str,
        without: &'static str,
        work: impl FnOnce(&PipeReader) -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (reader, writer) = std::io::pipe().context("making a pipe")?;
        let run = move || {
            if let Err(error) = work(&reader) {
                tracing::error!("{without}: {error:#}; restart the agent");
            }
        };
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(run)
            .with_context(|| format!("starting the thread {name:?}"))?;
        Ok(Self { without, stop: Some(writer), thread: Some(thread) })
    }

    /// Makes sure that the thread still runs.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let is_alive = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        ensure!(is_alive, "{}: start the agent again", self.without);
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(mut stop) = self.stop.take() {
            // Closing the pipe says the same.
            let _ = stop.write_all(&[0]);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Rests, for the whole time unless a signal or the end comes; true if it is time to end.
pub(crate) fn has_ended(stop: &PipeReader, rest: Duration) -> anyhow::Result<bool> {
    let rest = Timespec::try_from(rest)?;
    match poll(&mut [PollFd::new(stop, PollFlags::IN)], Some(&rest)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error).context("resting"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn a_worker_ends_when_it_is_dropped() {
        let (sender, receiver) = channel();
        let worker = Worker::start("test", "nothing is done", move |stop| {
            sender.send(has_ended(stop, Duration::ZERO)?)?;
            sender.send(has_ended(stop, LONG)?)?;
            Ok(())
        })
        .unwrap();
        assert!(!receiver.recv().unwrap(), "nobody has told it to");
        worker.check().unwrap();
        drop(worker);
        assert!(receiver.recv().unwrap());
    }

    #[test]
    fn one_that_failed_is_missed() {
        let worker = Worker::start("test", "nothing is done", |_| anyhow::bail!("why")).unwrap();
        while worker.check().is_ok() {
            std::thread::yield_now();
        }
        let error = worker.check().unwrap_err().to_string();
        assert_eq!(error, "nothing is done: start the agent again");
    }
}
