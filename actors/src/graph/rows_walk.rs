//! The graph as a question sees it, walked over rows: where it does not fit in memory, or is asked as it was known once.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use larder_protocol::Timestamp;
use larder_protocol::graph::AsOf;
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params_from_iter};

use super::relations::time_condition;
use super::row::{EntityRow, RELATION_CORE, RELATION_PAST_CORE, RelationRow};
use crate::graph_index::{Direction, Edge, KeyHash, LabelKey, Rules, Walk};
use crate::sqlite::interrupt;
use crate::store::{Failure, Outcome};

/// The graph over rows.
pub(super) struct RowsWalk<'a> {
    pub(super) connection: &'a Connection,
    pub(super) rules: &'a Rules,
    pub(super) as_of: AsOf,
    pub(super) now: Timestamp,
    /// Nodes that the rules for nodes do not count for.
    pub(super) exempt: &'a [i64],
}

impl RowsWalk<'_> {
    fn read(&self, node: i64, is_outgoing: bool) -> Outcome<Vec<RelationRow>> {
        let mut found = Vec::new();
        self.read_from(RELATION_CORE, "relation", node, is_outgoing, &mut found)?;
        if self.as_of.recorded.is_some() {
            self.read_from(RELATION_PAST_CORE, "relation_past AS relation", node, is_outgoing, &mut found)?;
            found.sort_by_key(|relation| relation.key);
        }
        Ok(found)
    }

    fn read_from(
        &self,
        columns: &str,
        source: &str,
        node: i64,
        is_outgoing: bool,
        found: &mut Vec<RelationRow>,
    ) -> Outcome<()> {
        let (condition, mut times) = time_condition(self.as_of, self.now, source != "relation");
        let end = if is_outgoing { "subject" } else { "object" };
        let sql =
            format!("SELECT {columns} FROM {source} WHERE relation.{end} = ? AND {condition} ORDER BY relation.key");
        let mut parameters = vec![Sql::Integer(node)];
        parameters.append(&mut times);
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(parameters))?;
        while let Some(row) = rows.next()? {
            found.push(RelationRow::read(row)?);
        }
        Ok(())
    }

    fn is_followed(&self, label_key: i64, other: i64) -> Outcome<bool> {
        let is_among = |labels: &Option<Vec<LabelKey>>, key: i64| {
            labels.as_ref().is_none_or(|labels| labels.iter().any(|label| i64::from(*label) == key))
        };
        if !is_among(&self.rules.labels, label_key) {
            return Ok(false);
        }
        if self.rules.node_labels.is_none() || self.exempt.contains(&other) {
            return Ok(true);
        }
        let entity = EntityRow::require(self.connection, other)?;
        Ok(is_among(&self.rules.node_labels, entity.label_key))
    }

    /// Shows the edges of one direction; without loops where those were shown already.
    fn one_way(
        &self,
        node: i64,
        is_outgoing: bool,
        skips_loops: bool,
        each: &mut impl FnMut(Edge<i64>) -> ControlFlow<()>,
    ) -> Outcome<ControlFlow<()>> {
        for relation in self.read(node, is_outgoing)? {
            let other = if is_outgoing { relation.object } else { relation.subject };
            if skips_loops && other == node || !self.is_followed(relation.label_key, other)? {
                continue;
            }
            let label = LabelKey::try_from(relation.label_key).unwrap_or_default();
            let edge = Edge { key: relation.key, label, other, is_outgoing, weight: relation.weight };
            if each(edge).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl Walk for RowsWalk<'_> {
    type Node = i64;
    type Error = Failure;
    type Table<T: Default + Clone> = HashMap<i64, T, KeyHash>;
    type Marks = HashSet<i64, KeyHash>;

    fn edges(
        &self,
        node: i64,
        direction: Direction,
        mut each: impl FnMut(Edge<i64>) -> ControlFlow<()>,
    ) -> Outcome<()> {
        if interrupt::is_over() {
            return Err(interrupt::interrupted().into());
        }
        if direction != Direction::Incoming && self.one_way(node, true, false, &mut each)?.is_break() {
            return Ok(());
        }
        if direction != Direction::Outgoing {
            let _ = self.one_way(node, false, direction == Direction::Both, &mut each)?;
        }
        Ok(())
    }

    fn table<T: Default + Clone>(&self) -> HashMap<i64, T, KeyHash> {
        HashMap::default()
    }

    fn all_nodes(&self, _: usize) -> Option<Vec<i64>> {
        None
    }

    fn marks(&self) -> HashSet<i64, KeyHash> {
        HashSet::default()
    }
}
