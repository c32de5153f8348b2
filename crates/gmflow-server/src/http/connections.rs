//! Connections: how many, and how long a client may take to ask.

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::response::Response;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

/// How long a client may take to send the headers of its next request.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// How long to wait after a connection could not be taken, as where there are too many files.
const PAUSE: Duration = Duration::from_millis(100);
/// A connection that has just come, or has just had its answer, may be about to ask: so long it need not make room.
const SETTLED: Duration = Duration::from_millis(500);

/// Answers requests until `closing` is set, and then until all connections have ended.
pub(crate) async fn serve(listener: TcpListener, router: Router, most: usize, mut closing: watch::Receiver<bool>) {
    let (graceful, places) = (GracefulShutdown::new(), Places::new(most));
    loop {
        let accepted = tokio::select! {
            accepted = next(&listener, &places) => accepted,
            _ = closing.wait_for(|closing| *closing) => break,
        };
        let Some((stream, place)) = accepted else { continue };
        // Small events are not held back.
        let _ = stream.set_nodelay(true);
        let (link, inner) = (Arc::clone(&place.link), TowerToHyperService::new(router.clone()));
        let service = service_fn(move |request: Request<Incoming>| {
            let asked = Asked::new(&link);
            let answer = inner.call(request);
            async move {
                let answer: Response = answer.await?;
                Ok::<_, std::convert::Infallible>(answer.map(|body| Following { body, _asked: asked }))
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME)
            .serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            tokio::select! {
                // A client that goes away is no error of the server.
                _ = connection => {}
                () = place.link.leave.notified() => {}
            }
            drop(place);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

/// The next connection, once there is a place for it.
async fn next(listener: &TcpListener, places: &Places) -> Option<(TcpStream, Place)> {
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, places.take().await?)),
        Err(error) => {
            log::warn!("a connection could not be taken: {error}");
            tokio::time::sleep(PAUSE).await;
            None
        }
    }
}

/// The places for connections.
struct Places {
    free: Arc<Semaphore>,
    taken: Mutex<Vec<Weak<Link>>>,
}

/// A connection's place, until it is dropped.
struct Place {
    link: Arc<Link>,
    _free: OwnedSemaphorePermit,
}

/// What is known of a connection.
struct Link {
    /// Requests that are not answered to their end.
    asked: AtomicUsize,
    /// Since when there has been none.
    idle: Mutex<Instant>,
    /// Tells it to make room.
    leave: Notify,
}

impl Places {
    fn new(most: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(most)), taken: Mutex::default() }
    }

    /// A place. Where all are taken, the connection that has asked for nothing for longest makes room; where all wait for answers,
    /// the new one waits for the end of one of them.
    async fn take(&self) -> Option<Place> {
        let free = match Arc::clone(&self.free).try_acquire_owned() {
            Ok(free) => free,
            Err(_) => loop {
                if let Some(longest) = self.longest_idle() {
                    longest.leave.notify_one();
                }
                // One that was asking just now may be idle soon.
                if let Ok(free) = tokio::time::timeout(PAUSE, Arc::clone(&self.free).acquire_owned()).await {
                    break free.ok()?;
                }
            },
        };
        let link =
            Arc::new(Link { asked: AtomicUsize::new(0), idle: Mutex::new(Instant::now()), leave: Notify::new() });
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|other| other.strong_count() > 0);
        taken.push(Arc::downgrade(&link));
        Some(Place { link, _free: free })
    }

    fn longest_idle(&self) -> Option<Arc<Link>> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = taken.iter().filter_map(Weak::upgrade).filter(|link| link.asked.load(Ordering::SeqCst) == 0);
        let since = |link: &Arc<Link>| *link.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, longest) = idle.map(|link| (since(&link), link)).min_by_key(|(since, _)| *since)?;
        (since.elapsed() >= SETTLED).then_some(longest)
    }
}

/// A request on its way, until its answer was sent.
struct Asked(Arc<Link>);

impl Asked {
    fn new(link: &Arc<Link>) -> Self {
        link.asked.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(link))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        *self.0.idle.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.asked.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The body of an answer, which ends the request with it.
struct Following {
    body: Body,
    _asked: Asked,
}

impl HttpBody for Following {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
