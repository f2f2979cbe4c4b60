//! From rows of features to a data set.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;
use shared::files::{at, from_hex};
use shared::service::ServiceError;
use shared::store::{Location, S3Store};

use super::RowsError;
use crate::dataset::{Dataset, Item, Skipped, hidden_below};
use crate::features::{CacheKey, Featurized, Record};

/// Longest row, in bytes.
const MOST_BYTES: u64 = 64 << 20;
/// What Spark and Hadoop leave beside parts that are not there yet.
const UNFINISHED: &str = "_temporary";

/// A data set whose features are known, wherever its images are.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// The images; the root is the part of their addresses that they share.
    pub dataset: Dataset,
    /// Those with features, and the reasons of the others.
    pub featurized: Featurized,
}

/// Reads the rows in a file, in the files of a folder, or in the objects of a bucket below a prefix, for a network
/// that gives `size` features and is named by `key`. Names that begin with `_` or `.` are passed over. Where an image
/// has several rows, the first one with features counts; it is listed where others give it another label.
///
/// An image's class is its row's label. Where no row has one, the images must lie in class folders, as
/// [`Dataset::scan`] finds them: what is hidden below the folder that all images share is passed over. That folder
/// itself may lie in a hidden one.
pub async fn read(place: &str, key: &CacheKey, size: usize) -> Result<Rows, RowsError> {
    let mut gathered = Gathered {
        key,
        size,
        rows: BTreeMap::new(),
    };
    match Location::parse(place)? {
        Location::Folder(path) => {
            for part in parts(&path, place)? {
                gathered.read(&part, &part.display().to_string())?;
            }
        }
        Location::S3 { bucket, prefix } => {
            let store = S3Store::connect(&bucket, &prefix).await?;
            let folder = tempfile::tempdir()?;
            let copy = folder.path().join("part");
            let mut after = None;
            loop {
                let page = store.page("", after).await?;
                for name in page.keys {
                    if is_unfinished(&name) {
                        return Err(RowsError::Unfinished(place.to_owned()));
                    }
                    if is_part(&name) && store.download(&name, &copy).await? {
                        gathered.read(&copy, &format!("{}/{name}", place.trim_end_matches('/')))?;
                    }
                }
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
    }
    gathered.finish(place)
}

fn is_unfinished(name: &str) -> bool {
    name.split('/').any(|part| part == UNFINISHED)
}

fn is_part(name: &str) -> bool {
    !name.is_empty()
        && !name
            .split('/')
            .any(|part| part.is_empty() || part.starts_with(['_', '.']))
}

/// The files with rows at `path`, sorted.
fn parts(path: &Path, place: &str) -> Result<Vec<PathBuf>, RowsError> {
    let failed = at(path);
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut parts = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_unfinished(&name) {
            return Err(RowsError::Unfinished(place.to_owned()));
        }
        if is_part(&name) && entry.path().is_file() {
            parts.push(entry.path());
        }
    }
    parts.sort();
    Ok(parts)
}

#[derive(Deserialize)]
struct Line<'a> {
    item: String,
    #[serde(default)]
    label: Option<String>,
    #[serde(default)]
    network: String,
    #[serde(default)]
    sha256: String,
    #[serde(default)]
    dhash: String,
    #[serde(borrow, default)]
    features: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<ServiceError>,
}

/// What is known of an image.
struct Known {
    label: Option<String>,
    /// Whether another row with features gives it another label.
    contradicted: bool,
    outcome: Result<Record, String>,
}

struct Gathered<'a> {
    key: &'a CacheKey,
    size: usize,
    rows: BTreeMap<String, Known>,
}

impl Gathered<'_> {
    /// Takes in the rows of one file, called `place`.
    fn read(&mut self, file: &Path, place: &str) -> Result<(), RowsError> {
        let failed = at(file);
        let mut reader = BufReader::with_capacity(1 << 20, File::open(file).map_err(failed)?);
        let mut bytes = Vec::new();
        for line in 1.. {
            let wrong = |reason: String| RowsError::Line {
                place: place.to_owned(),
                line,
                reason,
            };
            bytes.clear();
            let read = reader.by_ref().take(MOST_BYTES).read_until(b'\n', &mut bytes);
            match read.map_err(failed)? as u64 {
                0 => break,
                MOST_BYTES => return Err(wrong("the line is too long".to_owned())),
                _ if bytes.trim_ascii().is_empty() => continue,
                _ => {}
            }
            if bytes.trim_ascii_start().starts_with(b"[") {
                let reason =
                    "this is one JSON document and not a row for each line: run `trainer featurize` without --json";
                return Err(wrong(reason.to_owned()));
            }
            let row: Line = serde_json::from_slice(&bytes).map_err(|error| {
                wrong(if error.is_eof() {
                    "it is cut short, as where its writer was killed: compute these rows anew".to_owned()
                } else {
                    error.to_string()
                })
            })?;
            if row.error.is_none() && row.network != self.key.as_str() {
                return Err(RowsError::Foreign {
                    place: place.to_owned(),
                    line,
                });
            }
            let outcome = match &row.error {
                Some(error) => Err(error.message.clone()),
                None => Ok(self.record(&row).map_err(wrong)?),
            };
            let known = Known {
                label: row.label,
                contradicted: false,
                outcome,
            };
            match self.rows.get_mut(&row.item) {
                Some(before) if before.outcome.is_ok() => {
                    if let (Ok(_), Some(label)) = (known.outcome, known.label) {
                        let first = before.label.get_or_insert_with(|| label.clone());
                        before.contradicted |= *first != label;
                    }
                }
                _ => {
                    self.rows.insert(row.item, known);
                }
            }
        }
        Ok(())
    }

    fn record(&self, row: &Line) -> Result<Record, String> {
        let numbers = row.features.map_or("", |features| features.get());
        let numbers = numbers.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let numbers = numbers.ok_or("it has neither features nor an error")?;
        // By the text itself, which gives the bits that were written.
        let features = numbers
            .split(',')
            .map(|number| {
                number
                    .trim()
                    .parse::<f32>()
                    .map_err(|_| format!("{number:?} is no number"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if features.len() != self.size || features.iter().any(|number| !number.is_finite()) {
            return Err(format!("it has no {} finite features", self.size));
        }
        let hash = |name: &str, text: &str| from_hex(text).ok_or_else(|| format!("its {name} is no hash"));
        Ok(Record {
            image: hash("sha256", &row.sha256)?,
            dhash: hash("dhash", &row.dhash)?,
            features,
        })
    }

    fn finish(self, place: &str) -> Result<Rows, RowsError> {
        if self.rows.is_empty() {
            return Err(RowsError::Nothing(place.to_owned()));
        }
        // An image that failed may have been asked for anywhere.
        let usable = self.rows.iter().filter(|(_, known)| known.outcome.is_ok());
        let root = common_folder(usable.map(|(item, _)| item));
        let is_labelled = self.rows.values().any(|row| row.label.is_some());
        let count = self.rows.len();
        let mut images = Vec::new();
        let mut skipped = Vec::new();
        let mut is_one_outside = false;
        for (item, known) in self.rows {
            let inside = below(&root, &item);
            if !is_labelled && inside.is_some_and(|path| hidden_below(Path::new(path))) {
                continue;
            }
            let path = PathBuf::from(inside.unwrap_or(&item));
            let mut skip = |reason: String| {
                skipped.push(Skipped {
                    path: path.clone(),
                    reason,
                });
            };
            if known.contradicted {
                skip("its rows have different labels; the first label counts".to_owned());
            }
            let class = if is_labelled { known.label } else { class_folder(&path) };
            match (class, known.outcome) {
                (Some(class), Ok(record)) => images.push((path, class, record)),
                (_, Err(reason)) => skip(reason),
                (None, Ok(_)) if is_labelled => skip("it has no label".to_owned()),
                (None, Ok(_)) => {
                    is_one_outside = true;
                    skip("not in a class folder".to_owned());
                }
            }
        }
        if !images.is_empty() {
            return data_set(root, images, skipped);
        }
        Err(match skipped.first() {
            Some(Skipped { path, reason }) if !is_one_outside => {
                RowsError::NothingReadable(count, format!("{}: {reason}", path.display()))
            }
            _ => RowsError::NoLabels(place.to_owned()),
        })
    }
}

/// The data set of `images` below `root`, each with its class, in the order of their paths.
fn data_set(
    root: String,
    mut images: Vec<(PathBuf, String, Record)>,
    skipped: Vec<Skipped>,
) -> Result<Rows, RowsError> {
    images.sort_by(|a, b| a.0.cmp(&b.0));
    let classes: BTreeSet<String> = images.iter().map(|(_, class, _)| class.clone()).collect();
    let classes: Vec<String> = classes.into_iter().collect();
    let images: Vec<(Item, Record)> = images
        .into_iter()
        .map(|(path, class, record)| {
            let class = classes.binary_search(&class).unwrap_or_default();
            (Item { path, class }, record)
        })
        .collect();
    let dataset = Dataset {
        root: root.into(),
        classes,
        items: images.iter().map(|(item, _)| item.clone()).collect(),
        skipped: Vec::new(),
    };
    dataset.check_case()?;
    let featurized = Featurized { images, skipped };
    Ok(Rows { dataset, featurized })
}

/// The first folder of `path`, which is the class; none where the image lies in no folder, or its address has a scheme.
fn class_folder(path: &Path) -> Option<String> {
    let mut parts = path.components();
    let first = parts.next()?.as_os_str().to_str()?;
    parts.next()?;
    (!first.ends_with(':')).then(|| first.to_owned())
}

/// The path of `item` within `root`; none where it lies elsewhere.
fn below<'a>(root: &str, item: &'a str) -> Option<&'a str> {
    let rest = item.strip_prefix(root)?;
    (root.is_empty() || root == "/" || rest.starts_with('/')).then(|| rest.trim_start_matches('/'))
}

/// The longest folder that all of `items` are in, or below.
fn common_folder<'a>(items: impl Iterator<Item = &'a String>) -> String {
    let folder = |item: &'a str| item.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut common: Option<Vec<&str>> = None;
    for item in items {
        let parts: Vec<&str> = folder(item).split('/').collect();
        common = Some(match common {
            None => parts,
            Some(common) => {
                let shared = common.iter().zip(&parts).take_while(|(a, b)| a == b).count();
                common[..shared].to_vec()
            }
        });
    }
    let common = common.unwrap_or_default();
    if common == [""] {
        return "/".to_owned();
    }
    let common = common.join("/");
    // `s3://bucket/...` and `s3://other/...` share a scheme, but no folder.
    if common.ends_with(":/") || common.ends_with(':') {
        return String::new();
    }
    common
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use shared::preprocessing::{ChannelOrder, Geometry, Preprocessing};

    use super::*;

    fn key() -> CacheKey {
        let preprocessing = Preprocessing {
            resolution: 32,
            geometry: Geometry::Letterbox,
            background: [0; 3],
            channels: ChannelOrder::Rgb,
            mean: [0.0; 3],
            std: [1.0; 3],
        };
        CacheKey::new("network", &preprocessing)
    }

    fn row(item: &str, label: Option<&str>, features: &[f32]) -> Value {
        json!({
            "item": item, "label": label, "network": key().as_str(), "sha256": "0f".repeat(32),
            "dhash": "a0".repeat(32), "features": features,
        })
    }

    fn broken(item: &str) -> Value {
        json!({ "item": item, "error": { "code": "not_found", "message": "gone" }, "passing": false })
    }

    async fn rows(rows: &[Value], size: usize) -> Result<Rows, RowsError> {
        let folder = tempfile::tempdir().expect("a folder");
        let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
        std::fs::write(folder.path().join("part-00000"), lines.join("\n")).expect("written");
        std::fs::write(folder.path().join("_SUCCESS"), "").expect("written");
        read(&folder.path().display().to_string(), &key(), size).await
    }

    fn found(rows: &Rows) -> Vec<(String, &str)> {
        let Dataset { classes, items, .. } = &rows.dataset;
        let of = |item: &Item| (item.path.display().to_string(), classes[item.class].as_str());
        items.iter().map(of).collect()
    }

    #[tokio::test]
    async fn class_folders_are_found_as_in_a_folder() {
        for root in [
            "/data/photos",
            "photos",
            "s3://bucket/photos",
            "/",
            "https://example.com/a",
        ] {
            let at = |path: &str| format!("{}/{path}", root.trim_end_matches('/'));
            let given = [
                row(&at("dotted-wide/1.jpg"), None, &[1.0]),
                row(&at("striped/b/1.jpg"), None, &[2.0]),
                row(&at("dotted/2.jpg"), None, &[3.0]),
                broken(&at("dotted/1.jpg")),
                row(&at("alone.jpg"), None, &[4.0]),
            ];
            let read = rows(&given, 1).await.expect(root);
            assert_eq!(read.dataset.root, Path::new(root));
            // The order of a folder: that of its entries, not of whole paths.
            let expected = [
                ("dotted/2.jpg", "dotted"),
                ("dotted-wide/1.jpg", "dotted-wide"),
                ("striped/b/1.jpg", "striped"),
            ];
            assert_eq!(
                found(&read),
                expected.map(|(path, class)| (path.to_owned(), class)),
                "{root}"
            );
            let skipped = read.featurized.skipped.iter();
            let skipped: Vec<_> = skipped
                .map(|item| (item.path.display().to_string(), item.reason.as_str()))
                .collect();
            let expected = [("alone.jpg", "not in a class folder"), ("dotted/1.jpg", "gone")];
            assert_eq!(skipped, expected.map(|(path, reason)| (path.to_owned(), reason)));
        }
    }

    #[tokio::test]
    async fn what_is_hidden_below_the_root_is_passed_over() {
        for root in ["/home/u/.data/photos", ".data", "./photos", "s3://bucket/.data"] {
            let at = |path: &str| format!("{root}/{path}");
            let given = [
                row(&at("dotted/1.jpg"), None, &[1.0]),
                row(&at("striped/1.jpg"), None, &[2.0]),
                row(&at("striped/.trash/2.jpg"), None, &[3.0]),
                row(&at(".ikat/excluded/striped/3.jpg"), None, &[4.0]),
                broken(&at(".ikat/annotations.jsonl")),
                broken(&at("dotted/.DS_Store")),
                broken("/home/u/.other/dotted/1.jpg"),
            ];
            let read = rows(&given, 1).await.expect(root);
            let expected = [("dotted/1.jpg", "dotted"), ("striped/1.jpg", "striped")];
            assert_eq!(
                found(&read),
                expected.map(|(path, class)| (path.to_owned(), class)),
                "{root}"
            );
            let skipped = read.featurized.skipped.iter().map(|item| item.path.as_path());
            assert_eq!(skipped.collect::<Vec<_>>(), [Path::new("/home/u/.other/dotted/1.jpg")]);
        }
    }

    #[tokio::test]
    async fn images_that_failed_elsewhere_do_not_move_the_root() {
        let given = [
            row("/data/photos/dotted/1.jpg", None, &[1.0]),
            row("/data/photos/striped/1.jpg", None, &[2.0]),
            broken("s3://bucket/other/1.jpg"),
            broken("/data/photos2/dotted/1.jpg"),
            broken("/é.jpg"),
            broken("/data/photos/dotted/2.jpg"),
        ];
        let read = rows(&given, 1).await.expect("rows");
        assert_eq!(read.dataset.root, Path::new("/data/photos"));
        assert_eq!(read.dataset.classes, ["dotted", "striped"]);
        let skipped = read.featurized.skipped.iter();
        let mut skipped: Vec<_> = skipped.map(|item| item.path.display().to_string()).collect();
        skipped.sort();
        let expected = [
            "/data/photos2/dotted/1.jpg",
            "/é.jpg",
            "dotted/2.jpg",
            "s3://bucket/other/1.jpg",
        ];
        assert_eq!(skipped, expected);
    }

    #[tokio::test]
    async fn labels_win_over_folders_and_features_over_errors() {
        let given = [
            broken("/a/x/1.jpg"),
            row("/a/x/1.jpg", None, &[1.0]),
            row("/a/x/1.jpg", Some("red"), &[1.0]),
            broken("/a/x/1.jpg"),
            row("/a/y/2.jpg", Some("blue"), &[2.0]),
            row("/a/x/1.jpg", Some("red"), &[1.0]),
            row("/a/x/1.jpg", None, &[1.0]),
            row("/a/y/2.jpg", Some("red"), &[2.0]),
            row("/a/y/3.jpg", None, &[3.0]),
        ];
        let read = rows(&given, 1).await.expect("rows");
        assert_eq!(
            found(&read),
            [("x/1.jpg".to_owned(), "red"), ("y/2.jpg".to_owned(), "blue")]
        );
        let skipped = read.featurized.skipped.iter();
        let reasons: Vec<_> = skipped.map(|item| item.reason.as_str()).collect();
        let different = "its rows have different labels; the first label counts";
        assert_eq!(reasons, [different, "it has no label"]);
        assert_eq!(read.featurized.images[0].1.image, [0x0f; 32]);
        assert_eq!(read.featurized.images[0].1.dhash, [0xa0; 32]);
    }

    #[tokio::test]
    async fn numbers_keep_their_bits() {
        let mut state = 1_u64;
        let numbers: Vec<f32> = std::iter::from_fn(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            Some(f32::from_bits((state >> 32) as u32))
        })
        .filter(|number| number.is_finite())
        .take(20_000)
        .collect();
        let given = [row("a/1", None, &numbers), row("b/1", None, &numbers)];
        let read = rows(&given, numbers.len()).await.expect("rows");
        let back = read.featurized.images[1].1.features.iter();
        assert!(
            back.map(|number| number.to_bits())
                .eq(numbers.iter().map(|number| number.to_bits()))
        );
    }

    #[tokio::test]
    async fn a_row_that_a_kill_cut_short_is_told_as_such() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("rows.jsonl");
        let text = format!("{}\n{}", row("a/1.jpg", None, &[1.0]), row("b/1.jpg", None, &[2.0]));
        for cut in [1, 9, 99] {
            std::fs::write(&file, &text[..text.len() - cut]).expect("written");
            let read = read(&file.display().to_string(), &key(), 1).await;
            let error = read.expect_err("a part of a row").to_string();
            assert!(error.contains("line 2: it is cut short"), "{error}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_told_of() {
        let mut foreign = row("a/1", None, &[1.0]);
        foreign["network"] = "0".into();
        let mut cut = row("a/1", None, &[1.0]);
        cut["sha256"] = "0f".into();
        let other_buckets = [row("s3://a/1.jpg", None, &[1.0]), row("s3://b/1.jpg", None, &[1.0])];
        for (given, part) in [
            (vec![], "holds no rows"),
            (vec![foreign], "--mean and --std that they were computed"),
            (vec![cut], "sha256"),
            (vec![row("a/1", None, &[])], "is no number"),
            (vec![row("a/1", None, &[1.0, 2.0])], "no 1 finite"),
            (vec![row("a/1.jpg", None, &[1.0])], "name no classes"),
            (other_buckets.to_vec(), "name no classes"),
            (vec![broken("a/1"), broken("a/2")], "none of the 2 images"),
            (vec![json!({ "item": "a/1", "network": key().as_str() })], "neither"),
            (vec![json!("a/1")], "line 1"),
        ] {
            let error = rows(&given, 1).await.expect_err(part).to_string();
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
