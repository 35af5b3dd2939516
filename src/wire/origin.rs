//! Which web pages may speak to the gateway: the origin that a browser names (RFC 6454 7), and the header lines
//! that let a page read the answer (WHATWG Fetch 3.2, CORS).
//!
//! A request without `Origin` is of no browser's page and passes: the list guards users of browsers against
//! pages that others made, not the gateway against programs, which may send what they like.

use std::sync::Arc;

use super::close::Refusal;
use super::request::Request;
use crate::stats::RefusalReason;

/// `web.origins`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origins(Option<Arc<[String]>>);

/// One of the list, by its number.
pub type OriginId = u16;

/// How long a browser may remember a preflight, in seconds: as long as Chromium does at most.
const PREFLIGHT_S: u32 = 7200;

impl Origins {
    /// Every page may.
    pub const ANY: Self = Self(None);

    /// Those of `list`; an empty one is `ANY`.
    pub fn new(list: &[String]) -> Self {
        Self((!list.is_empty()).then(|| list.into()))
    }

    /// Whose page asks, where there is a list and the request names an origin.
    ///
    /// Errors: 403 `forbidden_origin` for one that is not listed, `null` included; 400 for two of them.
    pub fn admit(&self, request: &Request<'_>) -> Result<Option<OriginId>, Refusal> {
        let mut named = request.header_values("origin");
        let Some(origin) = named.next() else { return Ok(None) };
        if named.next().is_some() {
            return Err(Refusal::new(RefusalReason::BadRequest, "more than one Origin header"));
        }
        let Some(list) = &self.0 else { return Ok(None) };
        match list.iter().position(|listed| listed.as_bytes() == origin) {
            Some(at) => Ok(Some(at as OriginId)),
            None => {
                let refusal =
                    Refusal::new(RefusalReason::ForbiddenOrigin, "this origin is not in web.origins");
                Err(Refusal { fields: "Vary: Origin\r\n".to_owned(), ..refusal })
            }
        }
    }

    /// The number here of what `id` names in `before`; `None` where it is not listed any more: then no page
    /// may read the answer.
    pub fn renumber(&self, id: Option<OriginId>, before: &Self) -> Option<OriginId> {
        let (Some(list), Some(listed)) = (&self.0, &before.0) else { return None };
        if Arc::ptr_eq(list, listed) {
            return id;
        }
        let origin = &listed[usize::from(id?)];
        list.iter().position(|listed| listed == origin).map(|at| at as OriginId)
    }

    /// Header lines of an answer, each with its CR LF.
    pub fn fields(&self, origin: Option<OriginId>) -> String {
        match (&self.0, origin) {
            (None, _) => "Access-Control-Allow-Origin: *\r\n".to_owned(),
            (Some(_), None) => "Vary: Origin\r\n".to_owned(),
            (Some(list), Some(at)) => {
                format!("Access-Control-Allow-Origin: {}\r\nVary: Origin\r\n", list[usize::from(at)])
            }
        }
    }

    /// The same for a refusal: the page may read when to come back, too.
    pub fn refusal_fields(&self, origin: Option<OriginId>) -> String {
        self.fields(origin) + "Access-Control-Expose-Headers: Retry-After\r\n"
    }

    /// The same for the answer to a preflight: what a page may send beyond a plain GET.
    pub fn preflight_fields(&self, origin: Option<OriginId>) -> String {
        let vary = if self.0.is_none() { "Vary: Origin\r\n" } else { "" };
        format!(
            "{}{vary}Access-Control-Allow-Methods: GET\r\n\
             Access-Control-Allow-Headers: Authorization, Cache-Control, Last-Event-ID\r\n\
             Access-Control-Max-Age: {PREFLIGHT_S}\r\n",
            self.fields(origin)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(list: &[&str]) -> Origins {
        Origins::new(&list.iter().map(|&origin| origin.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn issue_5_an_origin_keeps_its_name_in_another_list_and_has_no_number_where_it_is_not_listed() {
        let old = origins(&["https://a", "https://b", "https://c"]);
        let new = origins(&["https://c", "https://a"]);
        let numbers = [Some(0), Some(1), Some(2), None].map(|id| new.renumber(id, &old));
        assert_eq!(numbers, [Some(1), None, Some(0), None]);
        assert_eq!(old.renumber(Some(2), &old.clone()), Some(2));
        assert_eq!(Origins::ANY.renumber(Some(2), &old), None);
        assert_eq!(new.renumber(None, &Origins::ANY), None);
    }
}
