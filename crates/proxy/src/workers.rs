//! The threads that serve clients: one for each processor, each with a runtime of its own.
//!
//! A connection stays with the thread that it was given to, and so do its requests, their timers and
//! the connections to backends that they use. Nothing wakes another processor in the middle of a request,
//! and no request waits for a lock that another holds: on one runtime of many threads a request costs
//! a fifth more (`benches/gateway`). New connections go to whichever thread has the fewest.

use std::{
    cell::Cell,
    io,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};
use tokio::{runtime, sync::mpsc};

thread_local! {
    /// Which of the workers this thread is.
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

/// The number of the worker whose thread this is, from 0; 0 as well on any other thread.
pub(crate) fn number() -> usize {
    NUMBER.get()
}

/// How many workers there are: as many as this process may use processors.
pub(crate) fn count() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The threads. When the last of these is dropped they end, and whatever they still run is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Workers(Arc<[Worker]>);

#[derive(Debug)]
struct Worker {
    arrivals: mpsc::UnboundedSender<TcpStream>,
    /// Connections that it has.
    open: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts `count` threads that do with each connection what `serve` says.
    ///
    /// # Errors
    /// If the system refuses a thread or a runtime.
    pub(crate) fn start<F>(
        count: usize,
        serve: impl Fn(tokio::net::TcpStream) -> F + Clone + Send + 'static,
    ) -> io::Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let start = |number| Worker::start(number, serve.clone());
        (0..count).map(start).collect::<io::Result<Arc<_>>>().map(Self)
    }

    /// Hands `connection` to the one that has the fewest.
    pub(crate) fn serve(&self, connection: TcpStream) {
        let fewest = self.0.iter().min_by_key(|worker| worker.open.load(Relaxed));
        let Some(worker) = fewest else { return };
        worker.open.fetch_add(1, Relaxed);
        // It takes what comes until we are gone.
        let _ = worker.arrivals.send(connection);
    }
}

impl Worker {
    fn start<F>(
        number: usize,
        serve: impl Fn(tokio::net::TcpStream) -> F + Send + 'static,
    ) -> io::Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (arrivals, mut arriving) = mpsc::unbounded_channel();
        let open = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&open);
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let run = async move {
            while let Some(connection) = arriving.recv().await {
                let counted = Open(Arc::clone(&counted));
                match tokio::net::TcpStream::from_std(connection) {
                    Ok(connection) => {
                        let served = serve(connection);
                        tokio::spawn(async move {
                            served.await;
                            drop(counted);
                        });
                    }
                    Err(error) => tracing::warn!(%error, "a connection cannot be watched"),
                }
            }
        };
        thread::Builder::new().name(format!("traffic-{number}")).spawn(move || {
            NUMBER.set(number);
            runtime.block_on(run);
        })?;
        Ok(Self { arrivals, open })
    }
}

/// One connection of a worker, until it is dropped.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::TcpListener, sync::mpsc::channel, time::Duration};
    use tokio::sync::Semaphore;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn connection(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("listens");
        let (server, _) = listener.accept().expect("connected");
        server.set_nonblocking(true).expect("a socket");
        (client, server)
    }

    #[test]
    fn connections_are_spread_and_stay_where_they_are() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (told, hears) = channel();
        let go_on = Arc::new(Semaphore::new(0));
        let wait = Arc::clone(&go_on);
        let serve = move |_: tokio::net::TcpStream| {
            let (told, wait) = (told.clone(), Arc::clone(&wait));
            async move {
                let before = number();
                let _ = wait.acquire().await;
                told.send((before, number())).expect("somebody listens");
            }
        };
        let workers = Workers::start(3, serve).expect("threads");
        let _clients: Vec<_> = (0..6)
            .map(|_| {
                let (client, server) = connection(&listener);
                workers.serve(server);
                client
            })
            .collect();
        go_on.add_permits(6);
        let mut seen: Vec<_> =
            (0..6).map(|_| hears.recv_timeout(PATIENCE).expect("served")).collect();
        seen.sort_unstable();
        assert_eq!(seen, [(0, 0), (0, 0), (1, 1), (1, 1), (2, 2), (2, 2)]);
    }

    #[test]
    fn without_workers_nothing_runs_on() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (told, hears) = channel();
        let serve = move |_: tokio::net::TcpStream| {
            let told = told.clone();
            async move {
                told.send("began").expect("somebody listens");
                std::future::pending::<()>().await;
                drop(told);
            }
        };
        let workers = Workers::start(1, serve).expect("threads");
        let (_client, server) = connection(&listener);
        workers.serve(server);
        assert_eq!(hears.recv_timeout(PATIENCE), Ok("began"));
        drop(workers);
        // All who could tell anything are gone.
        let end = hears.recv_timeout(PATIENCE).expect_err("nothing more is told");
        assert_eq!(end, std::sync::mpsc::RecvTimeoutError::Disconnected);
    }
}
