//! From the images of a request to answers: where they come from, which version speaks, what is recorded.

use std::time::Instant;

use bytes::Bytes;

use super::error::ServiceError;
use super::request::{self, Images, Item, Options, Request};
use super::response::{Answer, Explanation, Model, Record, Response, Results, Scored};
use super::{Service, Version, hash};
use crate::files::hex;

/// Said where an explanation was asked for and there is none.
const NO_MAP: &str = "no explanation: this model's network offers no feature map that its features are the means of";

impl Service {
    pub(super) fn score(&self, request: &Request) -> Result<Response, ServiceError> {
        let asked = request::parse(request)?;
        match asked.images {
            Images::One(item) => {
                let image = self.obtain([Ok(item)]).next().unwrap_or_else(|| Err(broken_off()));
                let (outcome, record) = self.score_one(image, asked.options);
                let mut response = match outcome {
                    Ok(answer) => Response::json(200, &answer),
                    Err(error) => error.into(),
                };
                response.records = vec![record];
                Ok(response)
            }
            Images::Several(items) => {
                let (results, records): (Vec<_>, _) = self.score_all(items, asked.options).unzip();
                if self.is_over() {
                    return Err(ServiceError::over());
                }
                let results = results.into_iter().map(Into::into).collect();
                let mut response = Response::json(200, &Results { results });
                response.records = records;
                Ok(response)
            }
        }
    }

    /// One answer or error for each of any number of images, in their order and each when it is asked for, with the
    /// scores of the `top_k` likeliest classes or of all; and what to say of it in a log.
    pub fn score_each(
        &self,
        items: Vec<Result<Item, ServiceError>>,
        top_k: Option<usize>,
    ) -> impl Iterator<Item = (Result<Answer, ServiceError>, Record)> {
        let options = Options {
            top_k,
            ..Options::default()
        };
        self.score_all(items, options)
    }

    fn score_all(
        &self,
        items: Vec<Result<Item, ServiceError>>,
        options: Options,
    ) -> impl Iterator<Item = (Result<Answer, ServiceError>, Record)> {
        self.obtain(items).map(move |image| self.score_one(image, options))
    }

    /// The images of `items` one after the other, for as long as there is time; those in buckets are fetched ahead.
    pub(super) fn obtain(
        &self,
        items: impl IntoIterator<Item = Result<Item, ServiceError>>,
    ) -> impl Iterator<Item = Result<Bytes, ServiceError>> {
        let items: Vec<_> = items.into_iter().collect();
        let references: Vec<_> = items
            .iter()
            .filter_map(|item| match item {
                Ok(Item::Reference(reference)) => Some(reference.clone()),
                _ => None,
            })
            .collect();
        let mut fetched = (!references.is_empty()).then(|| self.references.fetch(references));
        items.into_iter().map(move |item| match item? {
            _ if self.is_over() => Err(ServiceError::over()),
            Item::Bytes(bytes) => Ok(bytes),
            Item::Reference(_) => fetched
                .as_mut()
                .and_then(Iterator::next)
                .unwrap_or_else(|| Err(broken_off())),
        })
    }

    fn score_one(
        &self,
        image: Result<Bytes, ServiceError>,
        options: Options,
    ) -> (Result<Answer, ServiceError>, Record) {
        let image = match image {
            Ok(image) => image,
            Err(error) => return (Err(error.clone()), Record::unread(error.code)),
        };
        let hash = hash(&image);
        score_by(self.speaker(&hash), &image, &hash, options, self.until)
    }
}

/// Scores an image, of the given SHA-256, by `version`, unless it is `until` before there is a place for it.
pub(super) fn score_by(
    version: &Version,
    image: &[u8],
    hash: &[u8; 32],
    options: Options,
    until: Option<Instant>,
) -> (Result<Answer, ServiceError>, Record) {
    let predicted = version.predict(image, options.explain, until);
    let outcome = predicted.map(|(prediction, timing, map)| {
        let mut answer = Answer::new(version.manifest(), &prediction, timing, options.top_k);
        match map {
            Some(png) => answer.explanation = Some(Explanation::new(&answer.label, &png)),
            None if options.explain => answer.warnings.push(NO_MAP.to_owned()),
            None => {}
        }
        answer
    });
    let record = Record {
        sha256: Some(hex(hash)),
        bytes: image.len(),
        model: Some(Model::of(version.manifest())),
        outcome: outcome.as_ref().map(Scored::from).map_err(|error| error.code),
    };
    (outcome, record)
}

fn broken_off() -> ServiceError {
    ServiceError::new(super::ErrorCode::Internal, "fetching the images broke off")
}
