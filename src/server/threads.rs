//! A thread for each client, and what it does when its client is gone.
//!
//! In: jobs, one for each client. Out: each runs in a thread of its own. A thread
//! that is done waits a moment for the next job, because a client that brings one
//! letter and goes is served in less time than a thread takes to make.
//!
//! Book: docs/08-threads.md.

use std::collections::VecDeque;
use std::fmt::{self, Debug, Formatter};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// A session needs little: its buffers are on the heap, and nothing recurses.
const STACK: usize = 128 * 1024;
/// How long a thread without a job stays.
const STAY: Duration = Duration::from_secs(1);

type Job = Box<dyn FnOnce() + Send>;

/// All threads that serve clients.
#[derive(Default)]
pub struct Threads {
    idle: Mutex<Idle>,
    /// Told whenever there is a job.
    job: Condvar,
}

#[derive(Default)]
struct Idle {
    /// How many threads wait for a job.
    threads: usize,
    /// Jobs handed to them, never more than there are threads.
    jobs: VecDeque<Job>,
}

impl Threads {
    /// Runs a job in a thread that has none, or in a new one. An error means that
    /// the system has no thread for us; the job is dropped then.
    pub fn run(self: &Arc<Threads>, job: Job) -> io::Result<()> {
        let mut idle = self.idle();
        if idle.jobs.len() < idle.threads {
            idle.jobs.push_back(job);
            self.job.notify_one();
            return Ok(());
        }
        drop(idle);
        let threads = Arc::clone(self);
        let thread = thread::Builder::new().name("client".to_owned()).stack_size(STACK);
        let work = move || {
            let mut next = Some(job);
            while let Some(job) = next {
                job();
                next = threads.next_job();
            }
        };
        thread.spawn(work).map(drop)
    }

    /// Waits for a job, but not for ever.
    fn next_job(&self) -> Option<Job> {
        let mut idle = self.idle();
        idle.threads += 1;
        let waited = self.job.wait_timeout_while(idle, STAY, |idle| idle.jobs.is_empty());
        let (mut idle, _) = waited.unwrap_or_else(PoisonError::into_inner);
        idle.threads -= 1;
        idle.jobs.pop_front()
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        // No job runs while this lock is held, so none can leave it half changed.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Debug for Threads {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str("Threads")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread::ThreadId;

    /// Runs a job and gives the thread that ran it.
    fn thread_of(threads: &Arc<Threads>) -> ThreadId {
        let (say, said) = mpsc::channel();
        threads.run(Box::new(move || say.send(thread::current().id()).unwrap())).unwrap();
        said.recv().unwrap()
    }

    fn wait_for_idle(threads: &Threads, count: usize) {
        while threads.idle().threads != count {
            thread::yield_now();
        }
    }

    #[test]
    fn a_thread_that_is_done_is_used_again() {
        let threads = Arc::new(Threads::default());
        let first = thread_of(&threads);
        wait_for_idle(&threads, 1);
        assert_eq!(thread_of(&threads), first);
    }

    #[test]
    fn every_job_that_is_under_way_has_a_thread_of_its_own() {
        let threads = Arc::new(Threads::default());
        let (go_on, wait) = mpsc::channel::<()>();
        threads.run(Box::new(move || wait.recv().unwrap())).unwrap();
        // These would wait for ever behind the first.
        let others: Vec<ThreadId> = (0..20).map(|_| thread_of(&threads)).collect();
        assert_eq!(others.len(), 20);
        go_on.send(()).unwrap();
    }

    #[test]
    fn a_job_that_panics_takes_only_its_own_thread_along() {
        let threads = Arc::new(Threads::default());
        let first = thread_of(&threads);
        wait_for_idle(&threads, 1);
        threads.run(Box::new(|| panic!("a bug, on purpose"))).unwrap();
        assert_ne!(thread_of(&threads), first);
    }
}
