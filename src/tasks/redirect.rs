//! Redirects after a change: back to the list, with a message.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Uri, header},
};

use super::{place::Place, task::TaskId};
use crate::session::flash::{Flash, Messages};

/// Returns the list from which a form was sent: that of the `Referer`, or else the first page. Only the paths
/// of lists count, so it leads to no other site.
pub(super) fn back(req: &HttpRequest) -> Place {
    let referer = req.headers().get(header::REFERER).and_then(|value| value.to_str().ok());
    let url = referer.and_then(|referer| referer.parse::<Uri>().ok());
    let url = url.as_ref().and_then(|url| url.path_and_query());
    url.and_then(|url| Place::from_url(url.as_str())).unwrap_or_default()
}

/// The URL of a row: its button has the focus there.
pub(super) fn at_row(place: Place, id: TaskId) -> String {
    format!("{place}#toggle-{}", id.get())
}

/// Redirects to the page that shows the message.
pub(super) fn tell(
    req: &HttpRequest,
    messages: &Messages,
    message: Flash,
    location: impl ToString,
) -> HttpResponse {
    let location = (header::LOCATION, location.to_string());
    let mut response = HttpResponse::SeeOther().insert_header(location).finish();
    messages.add(message, req, &mut response);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_leads_back_to_the_list_that_it_came_from_and_nowhere_else() {
        let back_from = |referer: &str| {
            let req = actix_web::test::TestRequest::default().insert_header(("referer", referer));
            back(&req.to_http_request()).to_string()
        };
        assert_eq!(back_from("http://localhost:8080/active?page=3"), "/active?page=3");
        for referer in ["http://localhost/7/edit", "https://other.example/evil", "//evil", "", "é"]
        {
            assert_eq!(back_from(referer), "/", "{referer}");
        }
    }
}
