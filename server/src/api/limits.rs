//! The code for messages over the limit, which is another one in Go's gRPC than in tonic.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tonic::Code;
use tower::{Layer, Service};

/// How tonic's messages about such a request, and about such an answer, begin in a header.
const TOO_LARGE: [&[u8]; 2] = [
    b"Error,%20decoded%20message%20length%20too%20large",
    b"Error,%20encoded%20message%20length%20too%20large",
];

/// Lets clients see `ResourceExhausted` when their message, or the answer to it, is over the limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits;

impl<S> Layer<S> for Limits {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited(inner)
    }
}

/// A service behind [`Limits`].
#[derive(Clone, Debug)]
pub(super) struct Limited<S>(S);

impl<S, B, R> Service<Request<B>> for Limited<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = Response<Ending<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let answered = self.0.call(request);
        Box::pin(async move {
            let mut response = answered.await?;
            mend(response.headers_mut());
            Ok(response.map(Ending))
        })
    }
}

/// A body whose trailers have the right code.
pub(crate) struct Ending<B>(B);

impl<B: Body<Data = Bytes> + Unpin> Body for Ending<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut polled = Pin::new(&mut self.0).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &mut polled
            && let Some(trailers) = frame.trailers_mut()
        {
            mend(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// Puts the code right in headers or trailers that tell of a message over the limit.
fn mend(headers: &mut HeaderMap) {
    let Some(message) = headers.get("grpc-message") else { return };
    if TOO_LARGE.iter().any(|words| message.as_bytes().starts_with(words)) {
        headers.insert("grpc-status", HeaderValue::from(Code::ResourceExhausted as i32));
    }
}
