//! Removing a source, slice by slice.

use futures::FutureExt;
use futures::future::BoxFuture;
use larder_actors::Result;
use larder_protocol::graph::{RemoveSource, SourceRemoval};
use larder_protocol::{Error as Kind, SourceId};

use crate::larder::Larder;

/// The removal of a source in the making; awaited, it goes in slices, between which other writes go on.
///
/// # Errors
/// When a slice fails; the slices before it stay done. Repeat it after an error.
#[derive(Debug, Clone)]
#[must_use = "a removal only begins when it is awaited"]
pub struct RemovingSource {
    larder: Larder,
    message: Result<RemoveSource, Kind>,
}

impl RemovingSource {
    pub(super) fn new(larder: Larder, source: Result<SourceId, Kind>) -> Self {
        Self { larder, message: source.map(|source| RemoveSource { source, removes_lone_entities: false }) }
    }

    /// Deletes entities that thereby lose their last fact, too.
    pub fn with_lone_entities(mut self) -> Self {
        self.message = self.message.map(|message| RemoveSource { removes_lone_entities: true, ..message });
        self
    }
}

impl IntoFuture for RemovingSource {
    type Output = Result<SourceRemoval>;
    type IntoFuture = BoxFuture<'static, Result<SourceRemoval>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { larder, message } = self;
        async move {
            let (message, mut all) = (message?, SourceRemoval::default());
            loop {
                let slice = larder.ask(message.clone()).await?;
                all += slice.removal;
                if slice.is_last {
                    return Ok(all);
                }
            }
        }
        .boxed()
    }
}
