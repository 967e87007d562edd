//! The middleware that tells a connection when a request begins and when its answer ends.

use std::rc::Rc;

use actix_web::{
    Error,
    body::MessageBody,
    dev::{Payload, ServiceRequest, ServiceResponse},
    http::{ConnectionType, header},
    middleware::Next,
    web::Data,
};

use super::{body::Pieces, exchange::Exchange, framing::BodyKind, shutdown::Draining};

/// The outermost middleware. While the server is stopping, it closes the connection after the answer.
pub(crate) async fn take_turns(
    mut req: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let body = body_kind(&mut req);
    let answering = req.conn_data::<Rc<Exchange>>().cloned().map(|exchange| exchange.take(body));
    let is_draining = req.app_data::<Data<Draining>>().is_some_and(|draining| draining.has_begun());
    let mut res = next.call(req).await?;
    if is_draining {
        res.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
    Ok(res.map_body(|_, body| Pieces::new(body, answering)))
}

/// Returns how the body of a request ends, after Actix has checked the headers.
fn body_kind(req: &mut ServiceRequest) -> BodyKind {
    if matches!(req.parts_mut().1, Payload::None) {
        return BodyKind::Absent;
    }
    if req.headers().contains_key(header::TRANSFER_ENCODING) {
        return BodyKind::Chunked;
    }
    let length = req.headers().get(header::CONTENT_LENGTH);
    match length.and_then(|length| length.to_str().ok()?.trim().parse().ok()) {
        Some(length) => BodyKind::Sized(length),
        None => BodyKind::UntilClosed,
    }
}
