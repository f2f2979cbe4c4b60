//! The description of the interface for tools, OpenAPI 3.1: its schemas come from the very types that are read
//! and written, its paths from the table below.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use utoipa::ToSchema;
use utoipa::openapi::path::{HttpMethod, Operation, OperationBuilder, ParameterBuilder, ParameterIn, PathItem, Paths};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::schema::{ComponentsBuilder, KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{
    Content, InfoBuilder, LicenseBuilder, OpenApiBuilder, OpenApiVersion, Ref, RefOr, Required, Response,
    ResponseBuilder, Schema,
};

use super::error::ErrorCode;
use super::inference::{
    InferRequest, InferResponse, InferenceError, Liveness, ModelMetadata, ModelReadiness, Server, ServerReadiness,
};
use super::request::ScoreRequest;
use super::response::{Alive, Answer, Description, Readiness, Refusal, Results};
use super::routes;

const DESCRIPTION: &str = "\
Classifies images. POST an image to `/`, in base64 as JSON or as it is with its content type, and get a label, its \
probability, and whether it can be relied on. Errors have a stable `code` and a message that says what to do.";

/// What else may be asked for a score.
const PATHS: &str = "\
`/` and `/score` are the same. An image that is posted to any other path is classified too, unless the path is another one \
of this description or lies under `/v2`: what a gateway puts before a path (a stage, a base path) does not matter. So a \
slip in the path is not answered with 404.";

/// The media types of images that are read.
const IMAGES: [&str; 8] = [
    "image/jpeg",
    "image/png",
    "image/webp",
    "image/gif",
    "image/tiff",
    "image/bmp",
    "image/heic",
    "application/octet-stream",
];

/// What may be wrong with images.
const IMAGE: [ErrorCode; 8] = [
    ErrorCode::BadRequest,
    ErrorCode::Forbidden,
    ErrorCode::NotFound,
    ErrorCode::TooLarge,
    ErrorCode::UnsupportedFormat,
    ErrorCode::UndecodableImage,
    ErrorCode::StorageUnavailable,
    ErrorCode::DeadlineExceeded,
];

/// The description as JSON.
pub fn document() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| Document::default().write());
    &DOCUMENT
}

#[derive(Default)]
struct Document {
    schemas: BTreeMap<String, RefOr<Schema>>,
    paths: Paths,
}

impl Document {
    fn write(mut self) -> String {
        self.describe_own();
        self.describe_inference();
        let info = InfoBuilder::new()
            .title("Ikat scorer")
            .version(env!("CARGO_PKG_VERSION"))
            .description(Some(DESCRIPTION))
            .license(Some(
                LicenseBuilder::new()
                    .name(env!("CARGO_PKG_LICENSE"))
                    .identifier(Some(env!("CARGO_PKG_LICENSE")))
                    .build(),
            ));
        let document = OpenApiBuilder::new()
            .openapi(OpenApiVersion::Version31)
            .info(info.build())
            .paths(self.paths)
            .components(Some(ComponentsBuilder::new().schemas_from_iter(self.schemas).build()))
            .build();
        document.to_json().unwrap_or_default()
    }

    fn describe_own(&mut self) {
        let alive = self.schema::<Alive>();
        self.get("/health/live", "Whether the process answers", alive, &[]);
        let ready = self.schema::<Readiness>();
        self.get("/health/ready", "Whether there is a model to answer with", ready, &[]);
        let model = self.schema::<Description>();
        self.get(
            "/model",
            "The model that answers: its manifest, and what is on trial",
            model,
            &[],
        );
        let any = ObjectBuilder::new().schema_type(Type::Object).build();
        self.get("/openapi.json", "This description", any.into(), &[]);

        let answer = utoipa::openapi::schema::OneOfBuilder::new()
            .item(self.schema::<Answer>())
            .item(self.schema::<Results>())
            .build();
        let error = self.schema::<Refusal>();
        let asked = self.schema::<ScoreRequest>();
        for path in ["/", "/score"] {
            let operation = OperationBuilder::new()
                .summary(Some("Classify one image or several"))
                .description(Some(PATHS))
                .operation_id(Some(if path == "/" { "classify" } else { "score" }))
                .request_body(Some(body(asked.clone(), &IMAGES)))
                .response(
                    "200",
                    json(
                        "Scores; for a list, one result or one error each",
                        RefOr::T(Schema::OneOf(answer.clone())),
                    ),
                );
            self.add(path, HttpMethod::Post, operation, &error, &IMAGE);
        }
    }

    fn describe_inference(&mut self) {
        let server = self.schema::<Server>();
        self.get("/v2", "Open Inference Protocol: the server", server, &[]);
        let live = self.schema::<Liveness>();
        self.get(
            "/v2/health/live",
            "Open Inference Protocol: whether the server answers",
            live,
            &[],
        );
        let ready = self.schema::<ServerReadiness>();
        let summary = "Open Inference Protocol: whether there is a model to answer with";
        self.get("/v2/health/ready", summary, ready, &[]);
        let (model, ready) = (self.schema::<ModelMetadata>(), self.schema::<ModelReadiness>());
        let (asked, answer) = (self.schema::<InferRequest>(), self.schema::<InferResponse>());
        let error = self.schema::<InferenceError>();
        for (path, parameters) in [
            ("/v2/models/{name}", &["name"][..]),
            ("/v2/models/{name}/versions/{version}", &["name", "version"]),
        ] {
            let summary = "Open Inference Protocol: what a model takes and gives";
            self.get(path, summary, model.clone(), parameters);
            let summary = "Open Inference Protocol: whether a model is in memory";
            self.get(&format!("{path}/ready"), summary, ready.clone(), parameters);
            let operation = with_parameters(OperationBuilder::new(), parameters)
                .summary(Some("Open Inference Protocol: classify images"))
                .request_body(Some(body(asked.clone(), &[])))
                .response("200", json("Scores", answer.clone()));
            self.add(&format!("{path}/infer"), HttpMethod::Post, operation, &error, &IMAGE);
        }
    }

    /// A reference to a schema, which is kept with all it refers to.
    fn schema<T: ToSchema>(&mut self) -> RefOr<Schema> {
        let mut all = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut all);
        self.schemas.extend(all);
        Ref::from_schema_name(T::name()).into()
    }

    fn get(&mut self, path: &str, summary: &str, answer: RefOr<Schema>, parameters: &[&str]) {
        let error = if routes::is_inference(path) {
            self.schema::<InferenceError>()
        } else {
            self.schema::<Refusal>()
        };
        let operation = with_parameters(OperationBuilder::new(), parameters)
            .summary(Some(summary))
            .response("200", json("The answer", answer));
        let codes: &[ErrorCode] = if parameters.is_empty() {
            &[]
        } else {
            &[ErrorCode::NotFound]
        };
        self.add(path, HttpMethod::Get, operation, &error, codes);
    }

    fn add(
        &mut self,
        path: &str,
        method: HttpMethod,
        mut operation: OperationBuilder,
        error: &RefOr<Schema>,
        codes: &[ErrorCode],
    ) {
        let mut statuses: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
        for code in [ErrorCode::MethodNotAllowed].iter().chain(busy(path)).chain(codes) {
            statuses.entry(code.status()).or_default().push(code.name());
        }
        for (status, codes) in statuses {
            operation = operation.response(status.to_string(), json(&codes.join(", "), error.clone()));
        }
        let operation: Operation = operation.build();
        self.paths
            .paths
            .insert(path.to_owned(), PathItem::new(method, operation));
    }
}

/// What may keep any request for `path` from an answer that takes more than the process itself.
fn busy(path: &str) -> &'static [ErrorCode] {
    use ErrorCode::{Internal, ModelUnavailable, TooManyRequests};
    match routes::find("GET", path) {
        Ok(routes::Route::Standing(_)) => &[],
        // It waits for no place.
        Ok(route) if route.is_readiness() => &[Internal, ModelUnavailable],
        _ => &[TooManyRequests, Internal, ModelUnavailable],
    }
}

fn with_parameters(operation: OperationBuilder, names: &[&str]) -> OperationBuilder {
    let text = || Some(ObjectBuilder::new().schema_type(Type::String).build());
    names.iter().fold(operation, |operation, name| {
        let parameter = ParameterBuilder::new()
            .name(*name)
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .schema(text());
        operation.parameter(parameter.build())
    })
}

fn json(description: &str, schema: RefOr<Schema>) -> Response {
    ResponseBuilder::new()
        .description(description)
        .content("application/json", Content::new(Some(schema)))
        .build()
}

fn body(schema: RefOr<Schema>, images: &[&str]) -> RequestBody {
    let builder = RequestBodyBuilder::new()
        .required(Some(Required::True))
        .content("application/json", Content::new(Some(schema)));
    images
        .iter()
        .fold(builder, |builder, image| {
            let bytes = ObjectBuilder::new()
                .schema_type(Type::String)
                .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)));
            builder.content(*image, Content::new(Some(bytes.build())))
        })
        .build()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{document, routes};

    #[test]
    fn every_path_is_one_that_is_answered() {
        let document: Value = serde_json::from_str(document()).expect("JSON");
        assert!(document["openapi"].as_str().expect("a version").starts_with("3.1"));
        let paths = document["paths"].as_object().expect("paths");
        assert_eq!(paths.len(), 15);
        for (path, item) in paths {
            let path = path.replace("{name}", "m").replace("{version}", "v");
            for method in item.as_object().expect("methods").keys() {
                let found = routes::find(&method.to_uppercase(), &path);
                assert!(found.is_ok(), "{method} {path}: {found:?}");
            }
        }
    }

    #[test]
    fn it_is_said_that_other_paths_take_images_too() {
        let document: Value = serde_json::from_str(document()).expect("JSON");
        for path in ["/", "/score"] {
            let said = document["paths"][path]["post"]["description"].as_str();
            assert!(said.expect("a description").contains("any other path"), "{said:?}");
        }
    }

    #[test]
    fn what_is_answered_however_busy_the_process_is_promises_no_failure() {
        let document: Value = serde_json::from_str(document()).expect("JSON");
        for (path, fails, waits) in [
            ("/health/live", false, false),
            ("/openapi.json", false, false),
            ("/v2", false, false),
            ("/v2/health/live", false, false),
            ("/health/ready", true, false),
            ("/v2/health/ready", true, false),
            ("/v2/models/{name}/ready", true, false),
            ("/v2/models/{name}/versions/{version}/ready", true, false),
            ("/model", true, true),
            ("/v2/models/{name}", true, true),
        ] {
            let answers = document["paths"][path]["get"]["responses"]
                .as_object()
                .expect("answers");
            for (status, expected) in [("429", waits), ("500", fails), ("503", fails)] {
                assert_eq!(answers.contains_key(status), expected, "{path} {status}");
            }
        }
    }

    #[test]
    fn nested_data_is_described() {
        let document: Value = serde_json::from_str(document()).expect("JSON");
        let schemas = &document["components"]["schemas"];
        assert_eq!(
            schemas["InputTensor"]["properties"]["data"]["items"]["$ref"],
            "#/components/schemas/Element"
        );
        let text = schemas["Element"].to_string();
        assert!(
            text.contains("string") && text.contains("#/components/schemas/Element"),
            "{text}"
        );
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let text = document();
        let document: Value = serde_json::from_str(text).expect("JSON");
        let references: Vec<&str> = text
            .split("\"$ref\":\"#")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .collect();
        assert!(references.len() > 20);
        for reference in references {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
    }
}
