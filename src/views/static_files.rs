//! Serves static files. Their names change with their content, so browsers may store them for ever.

use actix_web::{
    HttpResponse,
    http::header,
    web::{Data, Path},
};

use super::Views;

/// A year: RFC 9111 sets no limit, and browsers and proxies accept this value.
const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// `GET /static/{name}`
pub(crate) async fn serve(views: Data<Views>, name: Path<String>) -> HttpResponse {
    let assets = views.assets();
    let Some(asset) = assets.find(&name) else {
        return HttpResponse::NotFound().finish();
    };
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, asset.content_type.as_str()))
        .insert_header((header::CACHE_CONTROL, FOR_EVER))
        .body(asset.content.clone())
}
