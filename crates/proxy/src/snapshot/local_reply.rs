//! What do the proxy's own replies look like? Envoy's `LocalReplyConfig`.

use lateen_xds::envoy::config::core::v3 as core_v3;
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3 as hcm_v3;

use super::Invalid;
use super::format::{Empty, FormatContext};
use super::hcm::{LogFormat, substitution_format};
use super::header_mutation::HeaderMutations;
use super::log_filter::LogFilter;
use super::route::inline_bytes;

/// How replies are changed before they are sent.
#[derive(Debug)]
pub struct LocalReplies {
    /// The first one whose filter includes the reply counts.
    pub mappers: Vec<Mapper>,
    /// The body, where no mapper has a format of its own; `None` is the reply's text.
    pub body: Option<BodyFormat>,
}

/// Changes of some replies.
#[derive(Debug)]
pub struct Mapper {
    /// Which ones.
    pub filter: LogFilter,
    /// Their new status.
    pub status: Option<u16>,
    /// Their new text.
    pub body: Option<Box<[u8]>>,
    /// What is made of the text.
    pub format: Option<BodyFormat>,
    /// Headers that they get.
    pub headers: HeaderMutations,
}

/// A body made of a format.
#[derive(Debug)]
pub struct BodyFormat {
    /// The format; `%LOCAL_REPLY_BODY%` is the text.
    format: LogFormat,
    /// Its `content-type`.
    pub content_type: Box<[u8]>,
}

impl LocalReplies {
    /// Reads the message; `None` for one that changes nothing.
    ///
    /// # Errors
    /// A mapper without a filter, a status outside 200–599, a body that does not lie in the message, a malformed format.
    pub(super) fn build(message: &hcm_v3::LocalReplyConfig) -> Result<Option<Self>, Invalid> {
        let mappers = message
            .mappers
            .iter()
            .enumerate()
            .map(|(index, message)| mapper(message).map_err(|invalid| invalid.under(&format!("mappers[{index}]"))));
        let mappers: Vec<_> = mappers.collect::<Result<_, _>>()?;
        let body = message.body_format.as_ref().map(BodyFormat::build).transpose();
        let body = body.map_err(|invalid| invalid.under("body_format"))?;
        Ok((!mappers.is_empty() || body.is_some()).then_some(Self { mappers, body }))
    }
}

impl BodyFormat {
    fn build(message: &core_v3::SubstitutionFormatString) -> Result<Self, Invalid> {
        let format = substitution_format(message)?;
        let content_type = match (&format, message.content_type.as_str()) {
            (LogFormat::Json(_), "") => "application/json",
            (LogFormat::Text(_), "") => "text/plain",
            (_, content_type) => content_type,
        };
        Ok(Self { content_type: content_type.as_bytes().into(), format })
    }

    /// Whether it is a line of JSON.
    pub(crate) fn is_json(&self) -> bool {
        matches!(self.format, LogFormat::Json(_))
    }

    /// The body for a reply, whose text is a part of the context.
    pub(crate) fn render(&self, cx: &FormatContext<'_>, out: &mut Vec<u8>) {
        match &self.format {
            LogFormat::Text(format) => format.render(cx, Empty::Dash, out),
            LogFormat::Json(format) => format.render(cx, out),
        }
    }
}

fn mapper(message: &hcm_v3::ResponseMapper) -> Result<Mapper, Invalid> {
    let Some(filter) = &message.filter else {
        return Err(Invalid::at("filter", "a filter is required".into()));
    };
    let status = match message.status_code.map(u16::try_from) {
        None => None,
        Some(Ok(status @ 200..600)) => Some(status),
        Some(_) => return Err(Invalid::at("status_code", "must be between 200 and 599".into())),
    };
    let body = message.body.as_ref().map(|body| inline_bytes(body).map(Box::from)).transpose();
    Ok(Mapper {
        filter: LogFilter::build(filter).map_err(|invalid| invalid.under("filter"))?,
        status,
        body: body.map_err(|invalid| invalid.under("body"))?,
        format: message
            .body_format_override
            .as_ref()
            .map(BodyFormat::build)
            .transpose()
            .map_err(|invalid| invalid.under("body_format_override"))?,
        headers: HeaderMutations::build(&message.headers_to_add, &[], "headers")?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn build(message: Value) -> Result<Option<LocalReplies>, Invalid> {
        LocalReplies::build(&lateen_xds::json::parse(message).unwrap())
    }

    fn mapper(mut fields: Value) -> Value {
        fields["filter"] = json!({"not_health_check_filter": {}});
        json!({"mappers": [fields]})
    }

    #[test]
    fn a_configuration_that_says_nothing_is_none() {
        assert!(build(json!({})).unwrap().is_none());
    }

    #[test]
    fn the_content_type_is_that_of_the_format_unless_one_is_given() {
        let of = |format: Value| build(json!({"body_format": format})).unwrap().unwrap().body.unwrap().content_type;
        assert_eq!(&*of(json!({"text_format": "x"})), b"text/plain");
        assert_eq!(&*of(json!({"json_format": {"a": "b"}})), b"application/json");
        assert_eq!(&*of(json!({"text_format": "x", "content_type": "text/html"})), b"text/html");
    }

    #[test]
    fn mappers_that_envoy_refuses_are_refused_with_their_place() {
        let refused = |message: Value| build(message).unwrap_err().path;
        assert_eq!(refused(json!({"mappers": [{}]})), "mappers[0].filter");
        assert_eq!(refused(mapper(json!({"status_code": 600}))), "mappers[0].status_code");
        assert_eq!(refused(mapper(json!({"status_code": 199}))), "mappers[0].status_code");
        assert_eq!(refused(mapper(json!({"body": {"filename": "/x"}}))), "mappers[0].body.filename");
        assert_eq!(refused(json!({"body_format": {"text_format": "%NO"}})), "body_format.log_format");
    }
}
