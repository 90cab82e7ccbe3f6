//! Ctrl-C and the other polite ways to stop a command.

use std::{cell::RefCell, future::poll_fn};

use tokio::signal::unix::{Signal, SignalKind, signal};
#[cfg(test)]
use tokio::sync::mpsc;

/// Tells when the user wants to stop. Once it was waited for, the process no longer ends by these signals alone.
#[derive(Debug)]
pub(crate) struct Interrupt {
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// The process's signals, from the first wait on.
    Signals(RefCell<Vec<Signal>>),
    /// A test says when.
    #[cfg(test)]
    Channel(RefCell<mpsc::Receiver<()>>),
}

impl Interrupt {
    /// Listens to SIGINT, SIGTERM and SIGHUP.
    pub(crate) fn of_process() -> Self {
        Self { source: Source::Signals(RefCell::new(Vec::new())) }
    }

    /// Listens to a channel.
    #[cfg(test)]
    pub(crate) fn of_channel(receiver: mpsc::Receiver<()>) -> Self {
        Self { source: Source::Channel(RefCell::new(receiver)) }
    }

    /// Waits for the next signal. Cancel-safe: none is lost when the future is dropped.
    ///
    /// Where signals cannot be listened to, it waits for ever and they end the process as usual.
    pub(crate) async fn wait(&self) {
        match &self.source {
            Source::Signals(signals) => {
                if signals.borrow().is_empty() {
                    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
                    signals.borrow_mut().extend(kinds.into_iter().filter_map(|kind| signal(kind).ok()));
                }
                poll_fn(|context| {
                    let mut signals = signals.borrow_mut();
                    // Each is polled, so that each wakes this task.
                    let ready = signals.iter_mut().filter_map(|signal| match signal.poll_recv(context) {
                        std::task::Poll::Ready(received) => received,
                        std::task::Poll::Pending => None,
                    });
                    if ready.count() > 0 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
                })
                .await;
            }
            #[cfg(test)]
            Source::Channel(receiver) => {
                poll_fn(|context| match receiver.borrow_mut().poll_recv(context) {
                    std::task::Poll::Ready(Some(())) => std::task::Poll::Ready(()),
                    _ => std::task::Poll::Pending,
                })
                .await;
            }
        }
    }
}
