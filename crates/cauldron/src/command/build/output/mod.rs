//! `--output`: where a build's result goes besides the engine's images.
//!
//! The result leaves by the API, whatever the engine: images as `GET /images/get` gives them, files as the export of a container
//! that never runs. Whoever asks for files alone gets no image: it has a name of ours until it has left, and goes then.
//! What is written appears whole or not at all: beside its place first, then renamed.

mod archive;
mod files;

pub use archive::{document, full};

use super::super::cp::piped;
use super::super::credentials;
use super::super::image::download;
use super::progress::Screen;
use crate::fail::Failure;
use crate::session::Session;
use crate::stream;
use client::{Chunks, Lines, Method, encode, query};
use serde_json::{Value, json};
use std::path::PathBuf;

/// What kind of result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An image of the engine.
    Image,
    /// As [`Kind::Image`], and pushed.
    Registry,
    /// `docker save`'s archive; without a destination an image of the engine.
    Docker,
    /// An OCI image layout.
    Oci,
    /// The files, in a directory.
    Local,
    /// The files, as a tar archive.
    Tar,
    /// One file.
    File,
}

/// Where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Stdout,
    Path(PathBuf),
}

/// One `--output`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub kind: Kind,
    pub place: Option<Place>,
    /// `name=`: image names.
    pub names: Vec<String>,
    pub push: bool,
    /// `tar=`: an archive rather than a directory.
    pub tar: bool,
    /// `src=`, of one file.
    pub source: Option<String>,
    /// `annotation.KEY=`, for the image.
    pub annotations: Vec<(String, String)>,
}

/// Everything that a build is to give.
#[derive(Debug, Default)]
pub struct Outputs {
    all: Vec<Output>,
    /// `--tag`.
    tags: Vec<String>,
}

impl Output {
    fn new(kind: Kind) -> Self {
        let (names, annotations) = (Vec::new(), Vec::new());
        Self { kind, place: None, names, push: false, tar: true, source: None, annotations }
    }

    fn parse(flag: &str) -> Result<Self, Failure> {
        let fields = crate::options::mount::fields(flag)?;
        if fields.len() == 1 && !flag.starts_with("type=") {
            let place = Place::of(flag.strip_prefix("dest=").unwrap_or(flag))?;
            let kind = if place == Place::Stdout { Kind::Tar } else { Kind::Local };
            return Ok(Self { place: Some(place), ..Self::new(kind) });
        }
        let wrong = |why: String| Failure::new(format!("invalid --output \"{flag}\": {why}"));
        let kind = fields.iter().find_map(|field| field.strip_prefix("type="));
        let mut output = Self::new(match kind.ok_or_else(|| wrong("type is required".to_owned()))? {
            "image" => Kind::Image,
            "registry" => Kind::Registry,
            "docker" => Kind::Docker,
            "oci" => Kind::Oci,
            "local" => Kind::Local,
            "tar" => Kind::Tar,
            "file" => Kind::File,
            "cacheonly" => return Err(wrong("type=cacheonly is not supported".to_owned())),
            other => {
                return Err(wrong(format!(
                    "unknown type {other}: image, registry, docker, oci, local, tar, file"
                )));
            }
        });
        output.push = output.kind == Kind::Registry;
        for field in &fields {
            let (key, value) = field.split_once('=').unwrap_or((field, "true"));
            let truth = || match value {
                "true" | "1" | "" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(wrong(format!("{key} is true or false, not {value}"))),
            };
            match key {
                "type" => {}
                "dest" | "destination" => output.place = Some(Place::of(value)?),
                "name" => output.names.extend(value.split(',').map(str::to_owned)),
                "push" => output.push = truth()?,
                "tar" => output.tar = truth()?,
                "src" | "source" if output.kind == Kind::File => output.source = Some(value.to_owned()),
                // What is always so here: layers are gzipped on their way to a registry, media types are OCI's.
                "compression" if matches!(value, "gzip" | "uncompressed") => {}
                "oci-mediatypes" | "rewrite-timestamp" | "unpack" | "store" | "attestation-prefix" => {}
                "force-compression" if !truth()? => {}
                key => {
                    match key.strip_prefix("annotation.").or_else(|| key.strip_prefix("annotation-manifest."))
                    {
                        Some(name) => output.annotations.push((name.to_owned(), value.to_owned())),
                        None => return Err(wrong(format!("{key}={value} is not supported"))),
                    }
                }
            }
        }
        output.check().map_err(wrong)?;
        Ok(output)
    }

    fn check(&mut self) -> Result<(), String> {
        match (self.kind, &self.place) {
            (Kind::Local | Kind::File, None) => Err("dest is required".to_owned()),
            (Kind::Local | Kind::File, Some(Place::Stdout)) => Err("dest must be a path".to_owned()),
            (Kind::Oci, None) if !self.tar => Err("tar=false needs a dest".to_owned()),
            (Kind::Tar | Kind::Oci, None) => {
                self.place = Some(Place::Stdout);
                Ok(())
            }
            (Kind::Image | Kind::Registry, Some(_)) => Err("an image has no dest".to_owned()),
            (_, Some(Place::Stdout)) if !self.tar => Err("tar=false needs a dest".to_owned()),
            _ => Ok(()),
        }
    }

    /// Whether it is, or leaves, an image of the engine.
    fn is_image(&self) -> bool {
        matches!(self.kind, Kind::Image | Kind::Registry)
            || (self.kind == Kind::Docker && self.place.is_none())
    }
}

impl Place {
    fn of(text: &str) -> Result<Self, Failure> {
        match text {
            "" => Err("--output: an empty destination".into()),
            "-" => Ok(Self::Stdout),
            path => Ok(Self::Path(
                std::path::absolute(path).map_err(crate::fail::file("resolve", path.as_ref()))?,
            )),
        }
    }
}

impl Outputs {
    /// Of `--output`, `--push`, `--load` and `--tag`.
    ///
    /// # Errors
    /// Names what is wrong.
    pub fn parse(flags: &[String], push: bool, load: bool, tags: Vec<String>) -> Result<Self, Failure> {
        let mut all = flags.iter().map(|flag| Output::parse(flag)).collect::<Result<Vec<_>, _>>()?;
        if push {
            all.push(Output { push: true, ..Output::new(Kind::Registry) });
        }
        if load {
            all.push(Output::new(Kind::Docker));
        }
        if all.iter().filter(|output| output.place == Some(Place::Stdout)).count() > 1 {
            return Err("only one --output can go to stdout".into());
        }
        let to_stdout = all.iter().any(|output| output.place == Some(Place::Stdout));
        if to_stdout && stream::is_terminal(std::io::stdout()) {
            return Err("refusing to write an archive to a terminal: give dest=, or redirect stdout".into());
        }
        let unnamed = |output: &Output| output.push && output.names.is_empty() && tags.is_empty();
        if all.iter().any(unnamed) {
            return Err("tag is needed when pushing to registry: give -t or name=".into());
        }
        Ok(Self { all, tags })
    }

    /// Whether stdout is an archive's.
    pub fn takes_stdout(&self) -> bool {
        self.all.iter().any(|output| output.place == Some(Place::Stdout))
    }

    /// The names that the engine is to give the image; `id` is the build's.
    pub fn tags(&self, id: &str) -> Vec<String> {
        if !self.keeps_image() {
            return vec![aside(id)];
        }
        let names = self.all.iter().filter(|output| output.is_image()).flat_map(|output| &output.names);
        self.tags.iter().chain(names).cloned().collect()
    }

    /// Annotations of the image.
    pub fn annotations(&self) -> impl Iterator<Item = (String, String)> {
        self.all.iter().flat_map(|output| output.annotations.iter().cloned())
    }

    fn keeps_image(&self) -> bool {
        self.all.is_empty() || self.all.iter().any(Output::is_image)
    }

    /// The first name of the image, for the metadata.
    pub fn names(&self) -> Vec<String> {
        let names = self.all.iter().flat_map(|output| &output.names);
        self.tags.iter().chain(names).cloned().collect()
    }

    /// Writes all of them. Gives what is known of the image then: its digest where it was pushed or written.
    ///
    /// # Errors
    /// Names the output that failed; those before it are there, of it there is nothing.
    pub async fn write(
        &self,
        session: &Session,
        screen: &mut Screen,
        image: &str,
        id: &str,
    ) -> Result<Option<Value>, Failure> {
        let mut descriptor = None;
        let mut failed = None;
        for output in &self.all {
            match self.one(session, screen, output, image).await {
                Ok(found) => descriptor = found.or(descriptor),
                Err(failure) => {
                    screen.fail();
                    failed = Some(failure);
                    break;
                }
            }
        }
        if !self.keeps_image() {
            let path = format!("/images/{}?force=1", encode(&aside(id)));
            session.client()?.bytes(Method::DELETE, &path, None).await?;
        }
        failed.map_or(Ok(descriptor), Err)
    }

    async fn one(
        &self,
        session: &Session,
        screen: &mut Screen,
        output: &Output,
        image: &str,
    ) -> Result<Option<Value>, Failure> {
        let names = if output.names.is_empty() { &self.tags } else { &output.names };
        if output.push {
            let mut pushed = None;
            for name in names {
                screen.begin(&format!("pushing {name}"));
                pushed = push(session, screen, name).await?.or(pushed);
            }
            return Ok(pushed);
        }
        let Some(place) = &output.place else { return Ok(None) };
        let client = session.client()?;
        match output.kind {
            Kind::Docker | Kind::Oci => {
                let what = if output.kind == Kind::Oci { "oci image format" } else { "docker image format" };
                screen.begin(&format!("exporting to {what}"));
                let path = query("/images/get", [("names", image.to_owned())]);
                let chunks = Chunks::new(client.call(Method::GET, &path, None).await?);
                let wish = archive::Wish {
                    oci: output.kind == Kind::Oci,
                    names: names.clone(),
                    place: place.clone(),
                    directory: !output.tar,
                };
                piped(chunks, move |source| archive::write(source, &wish)).await.map(Some)
            }
            Kind::Local | Kind::Tar | Kind::File => {
                let what = if output.kind == Kind::Tar { "tar" } else { "client directory" };
                screen.begin(&format!("exporting to {what}"));
                let container = Unstarted::new(session, image).await?;
                let written = container.files(session, output, place).await;
                let removed = container.remove(session).await;
                written.and_then(|skipped| {
                    skipped.iter().for_each(|text| screen.note(text));
                    removed.map(|()| None)
                })
            }
            Kind::Image | Kind::Registry => Ok(None),
        }
    }
}

/// The name of an image that is only on its way out.
fn aside(id: &str) -> String {
    format!("cauldron-output:{id}")
}

async fn push(session: &Session, screen: &mut Screen, name: &str) -> Result<Option<Value>, Failure> {
    let (repository, tag) = super::super::pull::split(name);
    let tag = if tag.is_empty() { "latest" } else { tag };
    let auth = credentials::header(session, name)?;
    let path = query(&format!("/images/{repository}/push"), [("tag", tag.to_owned())]);
    let (_, empty) = client::body_channel(1);
    let response =
        session.client()?.upload(Method::POST, &path, &[("X-Registry-Auth", &auth)], empty).await?;
    let aux = screen.follow(session, Lines::new(response)).await?;
    let pushed = aux.iter().rev().find(|aux| aux["Digest"].is_string());
    Ok(pushed.map(|aux| {
        let kind = "application/vnd.oci.image.manifest.v1+json";
        json!({ "mediaType": kind, "digest": aux["Digest"], "size": aux["Size"] })
    }))
}

/// A container of the image that never runs.
struct Unstarted(String);

impl Unstarted {
    async fn new(session: &Session, image: &str) -> Result<Self, Failure> {
        let body = json!({
            "Image": image, "Cmd": ["/"], "NetworkDisabled": true, "HostConfig": { "NetworkMode": "none" },
        });
        let answer = session.client()?.json(Method::POST, "/containers/create", Some(&body)).await?;
        Ok(Self(answer["Id"].as_str().unwrap_or_default().to_owned()))
    }

    /// Writes its files; says what was left out.
    async fn files(&self, session: &Session, output: &Output, place: &Place) -> Result<Vec<String>, Failure> {
        let path = format!("/containers/{}/export", self.0);
        let target = match place {
            Place::Path(path) => path.clone(),
            Place::Stdout => {
                download(session, &path, None).await?;
                return Ok(Vec::new());
            }
        };
        if output.kind == Kind::Tar {
            files::make_parent(&target)?;
            download(session, &path, Some(&target.to_string_lossy())).await?;
            return Ok(Vec::new());
        }
        let chunks = Chunks::new(session.client()?.call(Method::GET, &path, None).await?);
        if output.kind == Kind::File {
            let source = output.source.clone();
            return piped(chunks, move |stream| files::single(stream, source.as_deref(), &target)).await;
        }
        piped(chunks, move |stream| files::directory(stream, &target)).await
    }

    async fn remove(self, session: &Session) -> Result<(), Failure> {
        let path = format!("/containers/{}?v=1&force=1", self.0);
        Ok(session.client()?.bytes(Method::DELETE, &path, None).await.map(drop)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_read_as_buildx_reads_them() {
        let parse = |flag: &str| Output::parse(flag);
        let path = |text: &str| Some(Place::Path(std::path::absolute(text).unwrap()));
        let found = parse("out/dir").unwrap();
        assert_eq!((found.kind, found.place), (Kind::Local, path("out/dir")));
        let found = parse("-").unwrap();
        assert_eq!((found.kind, found.place), (Kind::Tar, Some(Place::Stdout)));
        let found = parse("type=image,\"name=a,b\",push=true").unwrap();
        assert_eq!((found.names, found.push), (vec!["a".to_owned(), "b".to_owned()], true));
        let found = parse("type=oci,dest=x,tar=false,annotation.k=v").unwrap();
        assert_eq!((found.tar, found.annotations), (false, vec![("k".to_owned(), "v".to_owned())]));
        for (flag, why) in [
            ("type=local", "dest is required"),
            ("dest=x,foo=bar", "type is required"),
            ("type=zip,dest=x", "unknown type zip"),
            ("type=oci,tar=false", "tar=false needs a dest"),
            ("type=image,dest=x", "an image has no dest"),
            ("type=oci,dest=x,compression=estargz", "compression=estargz is not supported"),
        ] {
            assert!(parse(flag).unwrap_err().message.contains(why), "{flag}");
        }
        let push = Outputs::parse(&["type=registry".to_owned()], false, false, Vec::new());
        assert!(push.unwrap_err().message.contains("tag is needed"));
        let files = Outputs::parse(&["out".to_owned()], false, false, vec!["a".to_owned()]).unwrap();
        assert_eq!(files.tags("7"), ["cauldron-output:7"]);
    }
}
