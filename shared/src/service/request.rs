//! What a caller asks for, read from a body of any of the accepted forms.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::base64;
use super::error::ServiceError;

/// Most images in one request.
pub const MAX_IMAGES: usize = 64;

/// The column of the original service's `input_df` rows.
const ROW_KEY: &str = "image base64 string";

/// A request, whoever carried it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// HTTP method in capitals; `POST` for a plain event.
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// The `content-type` header.
    pub content_type: Option<String>,
    /// The body, decoded if the carrier encoded it.
    pub body: Bytes,
}

/// The images and options of a request.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    pub(super) images: Images,
    /// Number of scores to answer with; all where `None`.
    pub(super) top_k: Option<usize>,
    pub(super) explain: bool,
}

/// One answer for one image, or a list of results for a list.
#[derive(Debug, PartialEq)]
pub(super) enum Images {
    One(Bytes),
    Several(Vec<Result<Bytes, ServiceError>>),
}

/// Reads a request; an image has at most `limit` bytes. In a list an image at fault stays in its
/// place, so that the others are answered.
///
/// # Errors
/// `bad_request` and `too_large`.
pub(super) fn parse(request: &Request, limit: usize) -> Result<Asked, ServiceError> {
    if request.body.is_empty() {
        return Err(ServiceError::bad_request(
            "there is no image: the body is empty; send {\"image\": \"<base64>\"}, or the image itself with its content-type",
        ));
    }
    if is_image(request.content_type.as_deref()) {
        return Ok(Asked {
            images: Images::One(request.body.clone()),
            top_k: None,
            explain: false,
        });
    }
    let value: Value = serde_json::from_slice(&request.body).map_err(|error| {
        ServiceError::bad_request(format!(
            "the body is not JSON ({error}); an image itself needs a content-type of image/*"
        ))
    })?;
    let Value::Object(members) = value else {
        return Err(ServiceError::bad_request("the body is JSON, but not an object"));
    };
    from_members(&members, limit)
}

fn is_image(content_type: Option<&str>) -> bool {
    let media = content_type.unwrap_or_default().split(';').next().unwrap_or_default();
    let media = media.trim().to_ascii_lowercase();
    media.starts_with("image/") || media == "application/octet-stream"
}

fn from_members(members: &Map<String, Value>, limit: usize) -> Result<Asked, ServiceError> {
    let forms: Vec<(&str, &Value)> = ["image", "images", "input_df", "s3"]
        .into_iter()
        .filter_map(|form| members.get(form).map(|value| (form, value)))
        .collect();
    let images = match forms.as_slice() {
        [("image", value)] => Images::One(image(value, "image", limit)?),
        [("images", value)] => several(
            list(value, "images")?
                .iter()
                .map(|value| image(value, "an entry of images", limit)),
        ),
        [("input_df", value)] => match list(value, "input_df")? {
            [one] => Images::One(row(one, limit)?),
            rows => several(rows.iter().map(|value| row(value, limit))),
        },
        [("s3", _)] => {
            return Err(ServiceError::bad_request(
                "this deployment allows no bucket: send the image as {\"image\": \"<base64>\"}",
            ));
        }
        [] => {
            return Err(ServiceError::bad_request(
                "there is no image: the body has none of image, images, input_df",
            ));
        }
        _ => {
            let names: Vec<&str> = forms.iter().map(|(form, _)| *form).collect();
            return Err(ServiceError::bad_request(format!(
                "the body has {} at once: send one of them",
                names.join(" and ")
            )));
        }
    };
    Ok(Asked {
        images,
        top_k: top_k(members.get("top_k"))?,
        explain: explain(members.get("explain"))?,
    })
}

fn several(images: impl Iterator<Item = Result<Bytes, ServiceError>>) -> Images {
    Images::Several(images.collect())
}

fn image(value: &Value, what: &str, limit: usize) -> Result<Bytes, ServiceError> {
    let text = value
        .as_str()
        .ok_or_else(|| ServiceError::bad_request(format!("{what} is not a string of base64")))?;
    base64::decode(text, limit).map(Bytes::from)
}

fn row(value: &Value, limit: usize) -> Result<Bytes, ServiceError> {
    let cell = value
        .get(ROW_KEY)
        .ok_or_else(|| ServiceError::bad_request(format!("a row of input_df has no {ROW_KEY:?}")))?;
    image(cell, "a row of input_df", limit)
}

fn list<'a>(value: &'a Value, what: &str) -> Result<&'a [Value], ServiceError> {
    let values = value
        .as_array()
        .ok_or_else(|| ServiceError::bad_request(format!("{what} is not a list")))?;
    if values.is_empty() || values.len() > MAX_IMAGES {
        return Err(ServiceError::bad_request(format!(
            "{what} has {} images; between 1 and {MAX_IMAGES} are taken in one request",
            values.len()
        )));
    }
    Ok(values)
}

fn top_k(value: Option<&Value>) -> Result<Option<usize>, ServiceError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(count) if count > 0 => Ok(Some(usize::try_from(count).unwrap_or(usize::MAX))),
            _ => Err(ServiceError::bad_request("top_k is not a positive integer")),
        },
    }
}

fn explain(value: Option<&Value>) -> Result<bool, ServiceError> {
    match value {
        None | Some(Value::Null) => Ok(false),
        Some(value) => value
            .as_bool()
            .ok_or_else(|| ServiceError::bad_request("explain is neither true nor false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::ErrorCode;

    fn ask(body: &str) -> Result<Asked, ServiceError> {
        parse(
            &Request {
                body: Bytes::copy_from_slice(body.as_bytes()),
                ..Request::default()
            },
            8,
        )
    }

    fn one() -> Images {
        Images::One(Bytes::from_static(&[0, 0, 0]))
    }

    #[test]
    fn reads_the_forms() {
        for body in [
            r#"{"image":"AAAA"}"#,
            r#"{"image":"AAAA","unknown":7,"top_k":null,"explain":false}"#,
            r#"{"input_df":[{"image base64 string":"AAAA","name":"x"}]}"#,
        ] {
            assert_eq!(ask(body).expect(body).images, one());
        }
        let Images::Several(images) = ask(r#"{"images":["AAAA","!",3]}"#).expect("a list").images else {
            panic!("a list of images is answered by a list");
        };
        let good: Vec<bool> = images.iter().map(Result::is_ok).collect();
        assert_eq!(good, [true, false, false]);
        let rows = r#"{"input_df":[{"image base64 string":"AAAA"},{"image base64 string":"AAAA"}]}"#;
        assert!(matches!(ask(rows).expect("rows").images, Images::Several(images) if images.len() == 2));
    }

    #[test]
    fn reads_the_options() {
        let asked = ask(r#"{"image":"AAAA","top_k":2,"explain":true}"#).expect("options");
        assert_eq!((asked.top_k, asked.explain), (Some(2), true));
    }

    #[test]
    fn takes_the_body_for_the_image_where_its_type_says_so() {
        for content_type in ["image/jpeg", "Image/PNG; x=y", "application/octet-stream"] {
            let request = Request {
                content_type: Some(content_type.to_owned()),
                body: Bytes::from_static(&[0, 0, 0]),
                ..Request::default()
            };
            assert_eq!(parse(&request, 8).expect(content_type).images, one());
        }
    }

    #[test]
    fn refuses_everything_else() {
        let many = format!(r#"{{"images":[{}"AAAA"]}}"#, r#""AAAA","#.repeat(MAX_IMAGES));
        for body in [
            "",
            "nonsense",
            "[]",
            "{}",
            r#"{"image":7}"#,
            r#"{"image":""}"#,
            r#"{"image":"AAAA","images":["AAAA"]}"#,
            r#"{"images":"AAAA"}"#,
            r#"{"images":[]}"#,
            &many,
            r#"{"input_df":[{}]}"#,
            r#"{"s3":"s3://bucket/key"}"#,
            r#"{"image":"AAAA","top_k":0}"#,
            r#"{"image":"AAAA","top_k":1.5}"#,
            r#"{"image":"AAAA","explain":"yes"}"#,
        ] {
            assert_eq!(ask(body).expect_err(body).code, ErrorCode::BadRequest, "{body}");
        }
    }
}
