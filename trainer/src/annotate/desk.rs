//! The images of a data set as they lie, and every change to that.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::journal::{Event, Journal, Move, Steps, inverse};
use super::moves::{self, plain};
use crate::audit::Doubt;
use crate::dataset::{
    CaseClash, Dataset, DatasetError, EXCLUDED, FolderLock, OWN_FOLDER, Skipped, case_clash, check_folders, escape,
    is_label, list_in, vacant,
};

const JOURNAL: &str = "annotations.jsonl";
/// Most images of one page.
const MOST: usize = 500;

/// An image.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Picture {
    /// Path below the data folder, escaped as in a split file; names the image.
    pub path: String,
    /// Its class, or the one that it had before it was excluded.
    pub label: String,
    /// Whether it is excluded from the data set.
    pub excluded: bool,
    /// How doubtful its label is, where an audit told.
    pub suspicion: Option<f32>,
    /// The class that the audit would rather give it.
    pub suggested: Option<String>,
}

/// Which images to show.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Query {
    /// Of this class alone.
    pub label: Option<String>,
    /// This image alone, wherever it is.
    pub path: Option<String>,
    /// The excluded ones, instead of those of the data set.
    pub excluded: bool,
    /// In which order.
    pub sort: Sort,
    /// How many to pass over.
    pub offset: usize,
    /// How many to show, 500 at most.
    pub limit: usize,
}

/// In which order images are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sort {
    /// By path.
    #[default]
    Path,
    /// The most doubtful label first.
    Suspicion,
}

/// Some of the images, and how the data set stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Page {
    /// Changes with every step.
    pub revision: u64,
    /// Number of images that the query is about.
    pub total: usize,
    /// Those asked for.
    pub images: Vec<Picture>,
    /// Every class.
    pub classes: Vec<ClassCount>,
    /// Number of excluded images.
    pub excluded: usize,
    /// Whether there is a step to take back.
    pub can_undo: bool,
    /// Whether there is a step to make again.
    pub can_redo: bool,
}

/// How many images a class has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClassCount {
    /// The class.
    pub label: String,
    /// Its images.
    pub count: usize,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reply {
    /// Of the data set after it.
    pub revision: u64,
    /// What was moved.
    pub moved: Vec<Move>,
    /// What was not.
    pub conflicts: Vec<Conflict>,
}

/// An image that was not moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// Which one.
    pub path: String,
    /// Why, for people to read.
    pub reason: String,
}

/// Why a change was not made at all.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// The data set.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The journal cannot be read or written.
    #[error("the journal {path}: {source}")]
    Journal {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No folder may have this name.
    #[error("{0:?} cannot be the name of a class: it must not be empty, begin with a dot or hold a slash")]
    Label(String),
    /// Excluded images have a label that differs in upper and lower case alone.
    #[error(
        "the label {label:?} differs only in upper and lower case from {excluded:?}, which excluded images have: give those \
         another label first"
    )]
    ExcludedClash {
        /// The label of the excluded images.
        excluded: String,
        /// The new one.
        label: String,
    },
    /// Somebody else has changed the data set meanwhile.
    #[error("another window has changed the data set meanwhile: look again before you undo")]
    Stale,
    /// There is no step.
    #[error("there is nothing to {0}")]
    NoStep(&'static str),
}

/// The data set on the desk. Nobody else changes it meanwhile.
pub struct Desk {
    root: PathBuf,
    /// By escaped path.
    pictures: BTreeMap<String, Place>,
    /// Those without an image, too.
    classes: BTreeSet<String>,
    doubts: HashMap<String, Doubt>,
    journal: Journal,
    steps: Steps,
    completed: Vec<Move>,
    left_out: Vec<Skipped>,
    revision: u64,
    _lock: FolderLock,
}

/// Where an image is. Those of the data set come before the excluded ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    excluded: bool,
    /// Its class, or the one that it had before it was excluded.
    label: String,
}

impl Desk {
    /// Lays out the data set in `root`, and carries out the rest of a step that a killed program left.
    pub fn open(root: &Path, doubts: Vec<Doubt>) -> Result<Self, DeskError> {
        check_folders(root)?;
        let path = root.join(OWN_FOLDER).join(JOURNAL);
        let excluded = root.join(OWN_FOLDER).join(EXCLUDED);
        // Before anything is made there: a wrong path must not become a data set.
        if scan(root)?.is_none() && !path.exists() && !excluded.exists() {
            return Err(DatasetError::NoClasses(root.to_path_buf()).into());
        }
        let lock = FolderLock::acquire(root)?;
        let (journal, steps) = Journal::open(&path).map_err(|source| DeskError::Journal { path, source })?;
        let completed = moves::complete(root, &steps.open);
        let mut desk = Self {
            root: root.to_path_buf(),
            pictures: BTreeMap::new(),
            classes: BTreeSet::new(),
            doubts: doubts.into_iter().map(|found| (found.path.clone(), found)).collect(),
            journal,
            steps,
            completed,
            left_out: Vec::new(),
            revision: 1,
            _lock: lock,
        };
        if !desk.steps.open.is_empty() {
            desk.record(&Event::Settled)?;
        }
        if let Some(found) = scan(root)? {
            desk.add(&found, Path::new(""), false);
            desk.left_out = found.skipped;
        }
        if excluded.is_dir()
            && let Some(found) = scan(&excluded)?
        {
            desk.add(&found, &Path::new(OWN_FOLDER).join(EXCLUDED), true);
        }
        Ok(desk)
    }

    fn add(&mut self, dataset: &Dataset, below: &Path, excluded: bool) {
        for item in &dataset.items {
            let label = dataset.classes[item.class].clone();
            let place = Place { excluded, label };
            self.pictures.insert(escape(&below.join(&item.path)), place);
        }
        if !excluded {
            self.classes.extend(dataset.classes.iter().cloned());
        }
    }

    /// The moves that a killed program had left and that were carried out now.
    pub fn completed(&self) -> &[Move] {
        &self.completed
    }

    /// What the data set has besides, which is not on the desk.
    pub fn left_out(&self) -> &[Skipped] {
        &self.left_out
    }

    /// Where an image is on disk; `None` for what is none of this data set.
    pub fn locate(&self, path: &str) -> Option<PathBuf> {
        self.pictures.get(path).map(|_| self.root.join(plain(path)))
    }

    /// The images that `query` asks for.
    pub fn page(&self, query: &Query) -> Page {
        let mut counts: BTreeMap<&str, usize> = self.classes.iter().map(|label| (label.as_str(), 0)).collect();
        let mut excluded = 0;
        let mut found: Vec<(&String, &Place)> = Vec::new();
        for (path, place) in &self.pictures {
            if place.excluded {
                excluded += 1;
            } else {
                *counts.entry(&place.label).or_default() += 1;
            }
            let of_label = || query.label.as_ref().is_none_or(|wanted| *wanted == place.label);
            let asked_for = match &query.path {
                Some(wanted) => wanted == path,
                None => place.excluded == query.excluded && of_label(),
            };
            if asked_for {
                found.push((path, place));
            }
        }
        if query.sort == Sort::Suspicion {
            let doubt = |path: &str, place: &Place| {
                self.doubt(path, &place.label)
                    .map_or(f32::NEG_INFINITY, |found| found.suspicion)
            };
            found.sort_by(|a, b| doubt(b.0, b.1).total_cmp(&doubt(a.0, a.1)));
        }
        let images = found
            .iter()
            .skip(query.offset)
            .take(query.limit.min(MOST))
            .map(|(path, place)| {
                let suspicion = self.doubt(path, &place.label);
                Picture {
                    path: (*path).clone(),
                    label: place.label.clone(),
                    excluded: place.excluded,
                    suspicion: suspicion.map(|found| found.suspicion),
                    suggested: suspicion.map(|found| found.suggested.clone()),
                }
            });
        Page {
            revision: self.revision,
            total: found.len(),
            images: images.collect(),
            classes: counts
                .into_iter()
                .map(|(label, count)| ClassCount {
                    label: label.to_owned(),
                    count,
                })
                .collect(),
            excluded,
            can_undo: !self.steps.done.is_empty(),
            can_redo: !self.steps.undone.is_empty(),
        }
    }

    /// Whether the label of any image of the data set was looked at.
    pub fn doubts_any(&self) -> bool {
        let mut pictures = self.pictures.iter();
        pictures.any(|(path, place)| !place.excluded && self.doubt(path, &place.label).is_some())
    }

    /// How doubtful the label of an image is. One that was changed is no longer the one that was looked at.
    fn doubt(&self, path: &str, label: &str) -> Option<&Doubt> {
        self.doubts.get(path).filter(|found| found.label == label)
    }

    /// Makes a class without images; its folder appears with the first one.
    ///
    /// # Errors
    /// [`DeskError::Label`], [`DeskError::ExcludedClash`], and [`DatasetError::CaseClash`] within
    /// [`DeskError::Dataset`].
    pub fn add_class(&mut self, label: &str) -> Result<(), DeskError> {
        self.check(label)?;
        self.name_class(label);
        Ok(())
    }

    /// Gives these images another label, or their place in the data set again: one step.
    ///
    /// # Errors
    /// [`DeskError::Label`], [`DeskError::ExcludedClash`], [`DatasetError::CaseClash`] within [`DeskError::Dataset`],
    /// and [`DeskError::Journal`].
    pub fn relabel(&mut self, paths: &[String], label: &str) -> Result<Reply, DeskError> {
        self.check(label)?;
        self.name_class(label);
        self.step(paths, |_, rest| Path::new(label).join(rest))
    }

    /// Takes these images out of the data set: one step. Their files stay in its own folder.
    ///
    /// # Errors
    /// [`DeskError::Journal`].
    pub fn exclude(&mut self, paths: &[String]) -> Result<Reply, DeskError> {
        let folder = Path::new(OWN_FOLDER).join(EXCLUDED);
        self.step(paths, |label, rest| folder.join(label).join(rest))
    }

    /// Takes the last step back, if the data set is still as `revision` says.
    ///
    /// # Errors
    /// [`DeskError::Stale`], [`DeskError::NoStep`] and [`DeskError::Journal`].
    pub fn undo(&mut self, revision: u64) -> Result<Reply, DeskError> {
        let last = self.steps.done.last().cloned();
        let back = inverse(&self.current(revision, last, "undo")?);
        self.carry_out(back, Vec::new(), Event::Undone)
    }

    /// Makes the step again that was taken back last, if the data set is still as `revision` says.
    ///
    /// # Errors
    /// [`DeskError::Stale`], [`DeskError::NoStep`] and [`DeskError::Journal`].
    pub fn redo(&mut self, revision: u64) -> Result<Reply, DeskError> {
        let last = self.steps.undone.last().cloned();
        let again = self.current(revision, last, "redo")?;
        self.carry_out(again, Vec::new(), Event::Redone)
    }

    /// Sees that a folder can have this name, and that the data set can be read with it. Excluded images count, as they
    /// may come back; a class without images does not, as another may take its place.
    fn check(&self, label: &str) -> Result<(), DeskError> {
        if !is_label(label) {
            return Err(DeskError::Label(label.to_owned()));
        }
        check_beside(self.places(), label)
    }

    /// Where there are images.
    fn places(&self) -> BTreeSet<&Place> {
        self.pictures.values().collect()
    }

    /// Adds a class, in the place of an empty one that differs in case alone.
    fn name_class(&mut self, label: &str) {
        self.classes
            .retain(|known| case_clash([known.as_str(), label]).is_none());
        self.classes.insert(label.to_owned());
    }

    fn current(&self, revision: u64, step: Option<Vec<Move>>, what: &'static str) -> Result<Vec<Move>, DeskError> {
        if revision != self.revision {
            return Err(DeskError::Stale);
        }
        step.ok_or(DeskError::NoStep(what))
    }

    /// Moves each image to where `target` says, from its label and its path below the class folder.
    fn step(&mut self, paths: &[String], target: impl Fn(&str, &Path) -> PathBuf) -> Result<Reply, DeskError> {
        let mut moves = Vec::new();
        let mut conflicts = Vec::new();
        let mut seen = HashSet::new();
        for path in paths.iter().filter(|path| seen.insert(*path)) {
            let Some(place) = self.pictures.get(path) else {
                conflicts.push(Conflict {
                    path: path.clone(),
                    reason: "it is no longer there: another window has moved it".to_owned(),
                });
                continue;
            };
            let (_, rest) = parsed(path);
            let to = escape(&target(&place.label, &rest));
            if to != *path {
                moves.push(Move { from: path.clone(), to });
            }
        }
        self.carry_out(moves, conflicts, Event::Done)
    }

    /// Journal first, then the files; what could not be moved is taken out of the journal again. A step that cannot be
    /// taken back or made again at all is passed over, so that those before it can.
    fn carry_out(
        &mut self,
        wanted: Vec<Move>,
        mut conflicts: Vec<Conflict>,
        event: impl Fn(Vec<Move>) -> Event,
    ) -> Result<Reply, DeskError> {
        let places = self.places();
        let mut taken = HashSet::new();
        let mut moves = Vec::new();
        for mut planned in wanted {
            planned.to = self.vacant(&planned.to, &taken);
            let inside = moves::check(&self.root, &planned).map_err(|error| error.to_string());
            let (place, _) = parsed(&planned.to);
            let beside = places.iter().copied().filter(|known| known.excluded == place.excluded);
            match inside.and_then(|()| check_beside(beside, &place.label).map_err(|error| error.to_string())) {
                Ok(()) => {
                    taken.insert(planned.to.clone());
                    moves.push(planned);
                }
                Err(reason) => conflicts.push(Conflict {
                    path: planned.from,
                    reason,
                }),
            }
        }
        if moves.is_empty() && matches!(event(Vec::new()), Event::Done(_)) {
            return Ok(Reply {
                revision: self.revision,
                moved: Vec::new(),
                conflicts,
            });
        }
        self.record(&event(moves.clone()))?;
        let mut moved = Vec::new();
        for planned in moves.iter().cloned() {
            match moves::carry_out(&self.root, &planned) {
                Ok(()) => {
                    self.follow(&planned);
                    moved.push(planned);
                }
                Err(error) => {
                    if error.kind() == io::ErrorKind::NotFound {
                        self.pictures.remove(&planned.from);
                    }
                    conflicts.push(Conflict {
                        path: planned.from,
                        reason: error.to_string(),
                    });
                }
            }
        }
        self.revision += 1;
        let outcome = if moved.is_empty() || moved.len() < moves.len() {
            Event::Amended(moved.clone())
        } else {
            Event::Settled
        };
        self.record(&outcome)?;
        Ok(Reply {
            revision: self.revision,
            moved,
            conflicts,
        })
    }

    fn record(&mut self, event: &Event) -> Result<(), DeskError> {
        self.journal.append(event).map_err(|source| DeskError::Journal {
            path: self.root.join(OWN_FOLDER).join(JOURNAL),
            source,
        })?;
        self.steps.take(event);
        Ok(())
    }

    /// Keeps the list as the files are.
    fn follow(&mut self, made: &Move) {
        self.pictures.remove(&made.from);
        let (place, _) = parsed(&made.to);
        if !place.excluded {
            self.name_class(&place.label);
        }
        if let Some(found) = self.doubts.remove(&made.from) {
            self.doubts.insert(made.to.clone(), found);
        }
        self.pictures.insert(made.to.clone(), place);
        // A class folder without images would be reported as empty; one with anything in it stays, and one without
        // which a list beside the class folders would be read in their place.
        for folder in plain(&made.from)
            .ancestors()
            .skip(1)
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            let is_needed = folder.components().count() == 1 && list_in(&self.root, 3).is_some();
            if folder.starts_with(OWN_FOLDER) || is_needed || fs::remove_dir(self.root.join(folder)).is_err() {
                break;
            }
        }
    }

    /// `path`, or where that is taken, beside it with a number.
    fn vacant(&self, path: &str, planned: &HashSet<String>) -> String {
        let taken = |path: &Path| planned.contains(&escape(path)) || fs::symlink_metadata(self.root.join(path)).is_ok();
        escape(&vacant(&plain(path), taken))
    }
}

/// Where the image at an escaped path is, and its path below the class folder.
fn parsed(path: &str) -> (Place, PathBuf) {
    let path = plain(path);
    let excluded = path.starts_with(OWN_FOLDER);
    let mut components = path.components().skip(if excluded { 2 } else { 0 });
    let label = components.next();
    let label = label.map(|label| label.as_os_str().to_string_lossy().into_owned());
    let place = Place {
        excluded,
        label: label.unwrap_or_default(),
    };
    (place, components.collect())
}

/// Sees that `label` differs from that of none of `places` in case alone: what is there could not be read again.
fn check_beside<'a>(places: impl IntoIterator<Item = &'a Place>, label: &str) -> Result<(), DeskError> {
    let mut places = places.into_iter();
    match places.find(|known| case_clash([known.label.as_str(), label]).is_some()) {
        None => Ok(()),
        Some(known) if known.excluded => Err(DeskError::ExcludedClash {
            excluded: known.label.clone(),
            label: label.to_owned(),
        }),
        Some(known) => {
            let clash = CaseClash {
                first: known.label.clone(),
                second: label.to_owned(),
            };
            Err(DeskError::Dataset(clash.into()))
        }
    }
}

/// The images in `folder`, where there are any.
fn scan(folder: &Path) -> Result<Option<Dataset>, DatasetError> {
    match Dataset::scan(folder) {
        Ok(found) => Ok(Some(found)),
        Err(DatasetError::NoClasses(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
