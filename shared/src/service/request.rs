//! What a caller asks for, read from a body of any of the accepted forms.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::base64;
use super::error::ServiceError;
use super::references::S3Reference;
use crate::image::Limits;

/// Most images in one request.
const MAX_IMAGES: usize = 64;

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

/// Images to classify: one of `image`, `images`, `s3` and `input_df`, and options beside it. An image that is sent as
/// it is, with its content type, is answered without options.
///
/// Images are JPEG, PNG, WebP, GIF, TIFF, BMP or HEIC in base64. The URL-safe alphabet, missing padding, line breaks and a
/// data-URL prefix are accepted.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({ "image": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC" }))]
pub(super) struct ScoreRequest {
    /// An image in base64, or its place as `s3://bucket/key`.
    #[schema(value_type = Option<String>)]
    image: Option<Value>,
    /// Up to 64 images; the answer has one result or error each, in their order.
    #[schema(value_type = Option<Vec<String>>, min_items = 1, max_items = 64)]
    images: Option<Vec<Value>>,
    /// The place of an image, `s3://bucket/key`, in a bucket that the deployment allows.
    #[schema(value_type = Option<String>, example = "s3://photos/1.jpg")]
    s3: Option<Value>,
    /// Images in rows of a table, as the service before this one took them.
    #[schema(value_type = Option<Vec<Row>>, min_items = 1, max_items = 64)]
    input_df: Option<Vec<Value>>,
    /// Answer with the scores of so many of the likeliest classes alone.
    #[schema(value_type = Option<u32>, minimum = 1)]
    top_k: Option<Value>,
    /// Answer with a heat map of what the decision rests on.
    #[schema(value_type = Option<bool>)]
    explain: Option<Value>,
}

/// A row of `input_df`.
#[derive(ToSchema)]
#[allow(dead_code)] // Read by its key, for the sake of the errors.
struct Row {
    /// An image in base64.
    #[schema(rename = "image base64 string")]
    image: String,
}

/// The images and options of a request.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    pub(super) images: Images,
    pub(super) options: Options,
}

/// What a caller may choose beside the images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Number of scores to answer with; all where `None`.
    pub(super) top_k: Option<usize>,
    pub(super) explain: bool,
}

/// One answer for one image, or a list of results for a list.
#[derive(Debug, PartialEq)]
pub(super) enum Images {
    One(Item),
    Several(Vec<Result<Item, ServiceError>>),
}

/// An image, or where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The image.
    Bytes(Bytes),
    /// Where it is.
    Reference(S3Reference),
}

impl Item {
    /// An image in base64, or a reference `s3://bucket/key`: a colon is in no alphabet of base64.
    ///
    /// # Errors
    /// `bad_request` and `too_large`.
    pub fn read(text: &str) -> Result<Self, ServiceError> {
        if text.starts_with("s3://") {
            return S3Reference::parse(text).map(Self::Reference);
        }
        Ok(Self::Bytes(base64::decode(text, Limits::default().max_bytes)?.into()))
    }
}

/// Reads a request. In a list an image at fault stays in its place, so that the others are answered.
///
/// # Errors
/// `bad_request` and `too_large`.
pub(super) fn parse(request: &Request) -> Result<Asked, ServiceError> {
    if request.body.is_empty() {
        return Err(ServiceError::bad_request(
            "there is no image: the body is empty; send {\"image\": \"<base64>\"}, or the image itself with its content-type",
        ));
    }
    if is_image(request.content_type.as_deref()) {
        return Ok(Asked {
            images: Images::One(Item::Bytes(request.body.clone())),
            options: Options::default(),
        });
    }
    ask(object(
        &request.body,
        "an image itself needs a content-type of image/*",
    )?)
}

/// Reads a JSON object; `otherwise` says how an image is sent that is no JSON.
///
/// # Errors
/// `bad_request`.
pub(super) fn object<'a, T: Deserialize<'a>>(body: &'a [u8], otherwise: &str) -> Result<T, ServiceError> {
    // A list would be taken for the members of a structure in their order.
    if body
        .trim_ascii_start()
        .first()
        .is_some_and(|first| b"[\"0123456789tfn".contains(first))
    {
        return Err(ServiceError::bad_request("the body is not a JSON object"));
    }
    serde_json::from_slice(body).map_err(|error| {
        ServiceError::bad_request(format!(
            "the body is not the JSON that is asked for ({error}); {otherwise}"
        ))
    })
}

fn is_image(content_type: Option<&str>) -> bool {
    let media = content_type.unwrap_or_default().split(';').next().unwrap_or_default();
    let media = media.trim().to_ascii_lowercase();
    media.starts_with("image/") || media == "application/octet-stream"
}

fn ask(request: ScoreRequest) -> Result<Asked, ServiceError> {
    let ScoreRequest {
        image,
        images,
        s3,
        input_df,
        top_k,
        explain,
    } = request;
    let options = options(top_k.as_ref(), explain.as_ref())?;
    let images = match (image, images, s3, input_df) {
        (Some(value), None, None, None) => Images::One(item(&value, "image")?),
        (None, Some(values), None, None) => several(&values, "images", |value| item(value, "an entry of images"))?,
        (None, None, Some(value), None) => Images::One(reference(&value)?),
        (None, None, None, Some(rows)) => match rows.as_slice() {
            [one] => Images::One(row(one)?),
            rows => several(rows, "input_df", row)?,
        },
        (None, None, None, None) => {
            return Err(ServiceError::bad_request(
                "there is no image: the body has none of image, images, s3, input_df",
            ));
        }
        _ => {
            return Err(ServiceError::bad_request(
                "the body has more than one of image, images, s3 and input_df: send one of them",
            ));
        }
    };
    Ok(Asked { images, options })
}

fn options(top_k: Option<&Value>, explain: Option<&Value>) -> Result<Options, ServiceError> {
    let invalid = |name: &str, value: &Value, wanted: &str| {
        let message = format!("{name} is {value}: send {wanted}, or leave it out");
        ServiceError::bad_request(message)
    };
    let count = |value: &Value| {
        let count = value.as_u64().filter(|count| *count > 0);
        let count = count.ok_or_else(|| invalid("top_k", value, "a whole number from 1 on"))?;
        Ok::<_, ServiceError>(usize::try_from(count).unwrap_or(usize::MAX))
    };
    let choice = |value: &Value| {
        value
            .as_bool()
            .ok_or_else(|| invalid("explain", value, "true or false"))
    };
    Ok(Options {
        top_k: top_k.map(count).transpose()?,
        explain: explain.map(choice).transpose()?.unwrap_or(false),
    })
}

fn several(
    values: &[Value],
    what: &str,
    read: impl Fn(&Value) -> Result<Item, ServiceError>,
) -> Result<Images, ServiceError> {
    check_count(values.len(), what)?;
    Ok(Images::Several(values.iter().map(read).collect()))
}

/// Bounds the work of one request.
///
/// # Errors
/// `bad_request`.
pub(super) fn check_count(count: usize, what: &str) -> Result<(), ServiceError> {
    if (1..=MAX_IMAGES).contains(&count) {
        return Ok(());
    }
    Err(ServiceError::bad_request(format!(
        "{what} has {count} images; between 1 and {MAX_IMAGES} are taken in one request"
    )))
}

/// An [`Item`] in JSON.
///
/// # Errors
/// `bad_request` and `too_large`.
pub(super) fn item(value: &Value, what: &str) -> Result<Item, ServiceError> {
    let text = value
        .as_str()
        .ok_or_else(|| ServiceError::bad_request(format!("{what} is not a string of base64")))?;
    Item::read(text)
}

fn reference(value: &Value) -> Result<Item, ServiceError> {
    S3Reference::parse(value.as_str().unwrap_or_default()).map(Item::Reference)
}

fn row(value: &Value) -> Result<Item, ServiceError> {
    let cell = value
        .get(ROW_KEY)
        .ok_or_else(|| ServiceError::bad_request(format!("a row of input_df has no {ROW_KEY:?}")))?;
    item(cell, "a row of input_df")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::ErrorCode;

    fn ask(body: &str) -> Result<Asked, ServiceError> {
        parse(&Request {
            body: Bytes::copy_from_slice(body.as_bytes()),
            ..Request::default()
        })
    }

    fn one() -> Images {
        Images::One(Item::Bytes(Bytes::from_static(&[0, 0, 0])))
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
        let expected = Options {
            top_k: Some(2),
            explain: true,
        };
        assert_eq!(asked.options, expected);
    }

    #[test]
    fn an_option_that_is_none_is_named() {
        for (body, words) in [
            (
                r#"{"image":"AAAA","top_k":0}"#,
                "top_k is 0: send a whole number from 1 on",
            ),
            (r#"{"image":"AAAA","top_k":"2"}"#, "top_k is \"2\""),
            (r#"{"image":"AAAA","explain":1}"#, "explain is 1: send true or false"),
        ] {
            let message = ask(body).expect_err(body).message;
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn reads_references() {
        let expected = || S3Reference::parse("s3://bucket/a/key").map(Item::Reference);
        for body in [r#"{"s3":"s3://bucket/a/key"}"#, r#"{"image":"s3://bucket/a/key"}"#] {
            assert_eq!(
                ask(body).expect(body).images,
                Images::One(expected().expect("a reference"))
            );
        }
        let asked = ask(r#"{"images":["s3://bucket/a/key","s3://bucket"]}"#).expect("a list");
        let Images::Several(images) = asked.images else {
            panic!("a list of images is answered by a list");
        };
        assert_eq!(images[0], expected());
        assert!(images[1].is_err());
    }

    #[test]
    fn takes_the_body_for_the_image_where_its_type_says_so() {
        for content_type in ["image/jpeg", "Image/PNG; x=y", "application/octet-stream"] {
            let request = Request {
                content_type: Some(content_type.to_owned()),
                body: Bytes::from_static(&[0, 0, 0]),
                ..Request::default()
            };
            assert_eq!(parse(&request).expect(content_type).images, one());
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
            r#"{"s3":"bucket/key"}"#,
            r#"{"s3":7}"#,
            r#"{"s3":"s3://bucket/key","image":"AAAA"}"#,
            r#"["AAAA",null,null,null,null,null]"#,
            r#"{"image":"AAAA","top_k":0}"#,
            r#"{"image":"AAAA","top_k":1.5}"#,
            r#"{"image":"AAAA","explain":"yes"}"#,
        ] {
            assert_eq!(ask(body).expect_err(body).code, ErrorCode::BadRequest, "{body}");
        }
    }
}
