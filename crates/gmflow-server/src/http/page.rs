//! The page: files in the program, or in a folder for those who work on it.

use super::{Shared, blocking, set, typed};
use crate::refusal::{Answer, Refusal};
use axum::extract::{Path, State};
use axum::response::Response;
use std::path::{Component, Path as FilePath};

/// The files of the page by their paths.
static FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/page.rs"));

pub(crate) async fn index(app: Shared) -> Answer<Response> {
    file(app, Path("index.html".to_owned())).await
}

pub(crate) async fn file(State(app): Shared, Path(path): Path<String>) -> Answer<Response> {
    let missing = || Refusal::not_found(format!("the page has no file {path}"));
    let bytes = match app.config.page.clone() {
        None => {
            let found = FILES.iter().find(|(name, _)| *name == path);
            found.map(|(_, bytes)| bytes.to_vec()).ok_or_else(missing)?
        }
        Some(folder) => {
            let plain = FilePath::new(&path).components().all(|part| matches!(part, Component::Normal(_)));
            let at = folder.join(&path);
            let read = blocking(move || Ok(std::fs::read(at).ok())).await?;
            read.filter(|_| plain).ok_or_else(missing)?
        }
    };
    let mut response = typed(kind(&path), bytes);
    // A new version of the program has new files under the same names.
    set(&mut response, "cache-control", "no-cache");
    Ok(response)
}

/// The type of a file by its ending.
fn kind(path: &str) -> &'static str {
    match path.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "json" => "application/json",
        "woff2" => "font/woff2",
        "txt" | "md" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
