//! Lists: rows that come page by page, printed up to a limit, with where to go on.
//!
//! Start at [`pages`] and [`print()`].

use std::pin::pin;

use futures::{Stream, StreamExt, TryStreamExt};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::Output;
use crate::table::{Column, Table};

/// Rows that are read at once.
pub(crate) const PAGE_ROWS: usize = 1_000;

/// A row of a list: its JSON form is the type itself.
pub(crate) trait Row: Serialize {
    const COLUMNS: &'static [Column];

    /// Returns the row for people; any text may be in it.
    fn cells(&self) -> Vec<String>;

    /// Returns what names the row to `--after`.
    fn cursor(&self) -> String;
}

/// Returns the rows of all pages: `read` answers a page that begins behind a row, and the row that the next one begins behind.
pub(crate) fn pages<C: 'static, R, F>(
    first: Option<C>,
    mut read: impl FnMut(Option<C>) -> F,
) -> impl Stream<Item = Result<R, Failure>>
where
    F: Future<Output = larder::Result<(Vec<R>, Option<C>)>>,
{
    let pages = futures::stream::try_unfold(Some(first), move |after| {
        let page = after.map(&mut read);
        async {
            let Some(page) = page else { return Ok::<_, Failure>(None) };
            let (rows, next) = page.await?;
            Ok(Some((futures::stream::iter(rows.into_iter().map(Ok)), next.map(Some))))
        }
    });
    pages.try_flatten()
}

/// Prints up to `limit` rows, and says where the list goes on.
pub(crate) async fn print<R: Row>(
    output: &mut Output,
    limit: usize,
    rows: impl Stream<Item = Result<R, Failure>>,
) -> Result<(), Failure> {
    let mut rows = pin!(rows);
    let (mut table, mut last) = (Table::new(R::COLUMNS), None);
    for _ in 0..limit {
        let Some(row) = rows.try_next().await? else {
            return table.print(output);
        };
        if output.is_json() {
            output.json(&row)?;
        } else {
            table.add(&row.cells());
        }
        last = Some(row.cursor());
    }
    table.print(output)?;
    if let Some(last) = last
        && rows.next().await.transpose()?.is_some()
    {
        output.note_more(&last);
    }
    Ok(())
}
