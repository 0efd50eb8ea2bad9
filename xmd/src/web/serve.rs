//! The HTTP server around the routes: connections are counted, silent ones are closed, and it stops when told.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::ServiceExt;

/// From accepting a connection, or the end of the last answer on it, to the end of the next request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request's head, and the buffer of a connection.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long answers in progress may take once the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// After an accept that failed, for want of descriptors as a rule: trying at once would burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `routes` on `listener` until `stop` resolves; then finishes what is in progress, for two seconds at most.
pub async fn serve(listener: TcpListener, routes: Router, connections_max: usize, stop: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(connections_max));
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let place = tokio::select! {
            () = &mut stop => break,
            place = places.clone().acquire_owned() => place.expect("the semaphore is never closed"),
        };
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a web connection could not be accepted; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = graceful.watch(connection(stream, peer, routes.clone()));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%peer, %error, "web connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(STOP_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!("some web connections were cut off while stopping");
    }
}

type Connection<S> = hyper::server::conn::http1::Connection<TokioIo<TcpStream>, S>;

fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    routes: Router,
) -> Connection<
    impl hyper::service::Service<
        hyper::Request<hyper::body::Incoming>,
        Response = axum::response::Response,
        Error = std::convert::Infallible,
        Future: Send,
    >,
> {
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer);
        routes.clone().oneshot(request.map(axum::body::Body::new))
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        // A form that arrived whole is taken, even if its sender hung up before we looked at it.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
}
