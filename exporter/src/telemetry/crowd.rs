//! Connections of strangers come in, as tasks; a bounded number of them runs. No stranger keeps another one out: where the
//! crowd is full, one that waits for its own client gives way, the oldest first. Nobody waits to be let in.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use tokio::task::AbortHandle;

/// The connections that are served now, the oldest first.
#[derive(Debug)]
pub(super) struct Crowd {
    most: usize,
    served: VecDeque<Served>,
}

#[derive(Debug)]
struct Served {
    task: AbortHandle,
    working: Working,
}

/// Whether flowtel works for a connection: its request is there, and its answer isn't ready yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Working(Arc<AtomicBool>);

/// Flowtel works until this is dropped.
#[derive(Debug)]
pub(super) struct Work(Working);

// === impl Crowd

impl Crowd {
    pub fn new(most: usize) -> Self {
        Self { most, served: VecDeque::new() }
    }

    /// Serves one more. Has to be called on tokio.
    pub fn admit<T: Future<Output = ()> + Send + 'static>(&mut self, serve: impl FnOnce(Working) -> T) {
        if self.served.len() >= self.most {
            self.served.retain(|one| !one.task.is_finished());
        }
        if self.served.len() >= self.most {
            // Who has asked and waits for flowtel goes last.
            let idle = self.served.iter().position(|one| !one.working.0.load(Relaxed));
            if let Some(one) = self.served.remove(idle.unwrap_or(0)) {
                one.task.abort();
            }
        }
        let working = Working::default();
        // Boxed, or a task of each caller's size would be moved through here.
        let serve: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(serve(working.clone()));
        self.served.push_back(Served { task: tokio::spawn(serve).abort_handle(), working });
    }
}

// === impl Working

impl Working {
    /// The request is there.
    pub fn begin(&self) -> Work {
        self.0.store(true, Relaxed);
        Work(self.clone())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.0.store(false, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn who_keeps_flowtel_waiting_gives_way_the_oldest_first_and_who_waits_for_it_stays() {
        let mut crowd = Crowd::new(3);
        // Each holds a sender of its own number; what is gone closes it.
        let (mut ends, mut told) = (Vec::new(), Vec::new());
        for n in 0..5 {
            let (alive, gone) = mpsc::channel::<()>(1);
            crowd.admit(|working| async move {
                let _work = (n == 0).then(|| working.begin());
                let _alive = alive;
                std::future::pending().await
            });
            ends.push(gone);
            tokio::task::yield_now().await;
        }
        for gone in &mut ends {
            tokio::task::yield_now().await;
            told.push(gone.try_recv() == Err(mpsc::error::TryRecvError::Disconnected));
        }
        assert_eq!(told, [false, true, true, false, false]);
    }

    #[tokio::test]
    async fn who_is_done_makes_room() {
        let mut crowd = Crowd::new(2);
        let (alive, mut gone) = mpsc::channel::<()>(1);
        crowd.admit(|_| async move {
            let _alive = alive;
            std::future::pending().await
        });
        for _ in 0..10 {
            crowd.admit(|_| async {});
            tokio::task::yield_now().await;
        }
        assert_eq!(gone.try_recv(), Err(mpsc::error::TryRecvError::Empty), "nobody had to give way");
    }
}
