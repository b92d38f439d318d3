//! `larder init`: makes a larder.

use std::path::PathBuf;

use clap::Args;
use larder::Larder;
use serde::Serialize;

use crate::failure::Failure;
use crate::folder::{self, Place};
use crate::output::Output;
use crate::text;

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Where; without it the folder that --folder names, or the current one
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Made {
    folder: PathBuf,
    /// False: it was a larder's already.
    is_new: bool,
}

pub(crate) async fn run(init: Init, place: &Place, output: &mut Output) -> Result<(), Failure> {
    let folder = init.folder.or_else(|| place.named.clone()).unwrap_or_else(|| PathBuf::from("."));
    if folder.exists() && !folder.is_dir() {
        return Err(Failure::refused(format!("{} is a file", folder.display())).with_hint("name a folder"));
    }
    let is_new = !folder::is_larder(&folder);
    let larder = Larder::open_with(folder::settings(&folder)).await?;
    larder.close().await;
    output.answer(&Made { folder, is_new }, |output, made| {
        let folder = made.folder.display().to_string();
        if !made.is_new {
            return output.line(format!("{} was a larder already", text::line(&folder)));
        }
        output.line(format!("made a larder in {}", text::line(&folder)))?;
        output.note(format!("put something in it: larder -C {} ingest FOLDER", text::word(&folder)));
        Ok(())
    })
}
