//! Connections: how many, and how long a client may take to ask.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// How long a client may take to send the headers of its next request.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// How long to wait after a connection could not be taken, as where there are too many files.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers requests until `closing` is set, and then until all connections have ended.
pub(crate) async fn serve(listener: TcpListener, router: Router, most: usize, mut closing: watch::Receiver<bool>) {
    let (graceful, slots) = (GracefulShutdown::new(), Arc::new(Semaphore::new(most)));
    loop {
        let next = async {
            // Those that come while all places are taken wait in the system's queue.
            let slot = Arc::clone(&slots).acquire_owned().await.ok()?;
            match listener.accept().await {
                Ok((stream, _)) => Some((slot, stream)),
                Err(error) => {
                    log::warn!("a connection could not be taken: {error}");
                    tokio::time::sleep(PAUSE).await;
                    None
                }
            }
        };
        let accepted = tokio::select! {
            accepted = next => accepted,
            _ = closing.wait_for(|closing| *closing) => break,
        };
        let Some((slot, stream)) = accepted else { continue };
        // Small events are not held back.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME)
            .serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A client that goes away is no error of the server.
            let _ = connection.await;
            drop(slot);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}
