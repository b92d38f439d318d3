//! Options of the graph's requests.

use larder_protocol::filter::Filter;
use larder_protocol::graph::{
    AsOf, EntityId, FindNeighborhood, FindNeighbors, FindPaths, FindRelations, FindShortestPath, FindSimilarEntities,
    GetDegree, InvalidateRelations, ListEntities, LookUpEntities, MapRelations, NeighborOrder, RankEntities,
    RelationId, RenameEntity, Seed, SelectSubgraph, ToEntity, Traversal, UpsertRelations, ValidAt,
};
use larder_protocol::{Label, SourceId, Timestamp};

use crate::request::Request;

/// Options of a question that follows facts.
macro_rules! follow_options {
    ($($message:ty),*) => {$(
        /// Which facts are followed.
        impl<T> Request<$message, T> {
            /// Which way.
            pub fn direction(self, direction: Traversal) -> Self {
                self.set(|question| question.follow.direction = direction)
            }

            /// Only from subjects to objects.
            pub fn outgoing(self) -> Self {
                self.direction(Traversal::Outgoing)
            }

            /// Only from objects to subjects.
            pub fn incoming(self) -> Self {
                self.direction(Traversal::Incoming)
            }

            /// Both ways.
            pub fn both_ways(self) -> Self {
                self.direction(Traversal::Both)
            }

            /// Only facts of this label; named again, of that one as well.
            pub fn relation(self, label: impl AsRef<str>) -> Self {
                self.change(|question| {
                    question.follow.labels.push(Label::new(label)?);
                    Ok(())
                })
            }

            /// Only to entities of this label; named again, of that one as well.
            pub fn entity_label(self, label: impl AsRef<str>) -> Self {
                self.change(|question| {
                    question.follow.entity_labels.push(Label::new(label)?);
                    Ok(())
                })
            }

            /// Only facts that hold at this time. Default: now.
            pub fn valid_at(self, time: Timestamp) -> Self {
                self.set(|question| question.follow.as_of.valid = ValidAt::Time(time))
            }

            /// Facts as they were known at this time. Default: now. It is answered from rows.
            pub fn recorded_at(self, time: Timestamp) -> Self {
                self.set(|question| question.follow.as_of.recorded = Some(time))
            }

            /// As of when. Default: now, as it is known now.
            pub fn as_of(self, as_of: AsOf) -> Self {
                self.set(|question| question.follow.as_of = as_of)
            }
        }
    )*};
}

follow_options!(
    FindNeighbors,
    FindNeighborhood,
    MapRelations,
    FindShortestPath,
    FindPaths,
    RankEntities,
    SelectSubgraph,
    GetDegree
);

/// A limit.
macro_rules! limit_option {
    ($($message:ty),*) => {$(
        /// How many.
        impl<T> Request<$message, T> {
            /// Most to return. The message says up to how many.
            pub fn limit(self, limit: usize) -> Self {
                self.set(|question| question.limit = limit)
            }
        }
    )*};
}

limit_option!(
    FindNeighbors,
    FindNeighborhood,
    MapRelations,
    FindPaths,
    RankEntities,
    LookUpEntities,
    FindSimilarEntities,
    ListEntities,
    FindRelations
);

/// Which label.
macro_rules! label_option {
    ($($message:ty),*) => {$(
        /// Which kind.
        impl<T> Request<$message, T> {
            /// Only of this label.
            pub fn label(self, label: impl AsRef<str>) -> Self {
                self.change(|question| {
                    question.label = Some(Label::new(label)?);
                    Ok(())
                })
            }
        }
    )*};
}

label_option!(LookUpEntities, FindSimilarEntities, ListEntities, FindRelations);

/// Options of an upsert of facts.
impl<T> Request<UpsertRelations, T> {
    /// Refuses entities that are not there, instead of making them.
    pub fn only_known_entities(self) -> Self {
        self.set(|upsert| upsert.creates_entities = false)
    }
}

/// Options of a rename.
impl<T> Request<RenameEntity, T> {
    /// Frees the old name, which otherwise stays an alias.
    pub fn without_alias(self) -> Self {
        self.set(|rename| rename.keeps_alias = false)
    }
}

/// Options of an invalidation.
impl<T> Request<InvalidateRelations, T> {
    /// From when on. Default: now.
    pub fn at(self, time: Timestamp) -> Self {
        self.set(|invalidation| invalidation.at = Some(time))
    }
}

/// Options of a page of entities.
impl<T> Request<ListEntities, T> {
    /// Only entities whose properties this is true of.
    pub fn matching(self, filter: Filter) -> Self {
        self.set(|list| list.filter = Some(filter))
    }

    /// Continues behind an entity.
    pub fn after(self, entity: EntityId) -> Self {
        self.set(|list| list.after = Some(entity))
    }
}

/// Options of a page of facts.
impl<T> Request<FindRelations, T> {
    /// Only of this entity.
    pub fn subject(self, entity: impl ToEntity) -> Self {
        self.change(|find| {
            find.subject = Some(entity.to_entity()?);
            Ok(())
        })
    }

    /// Only about this entity.
    pub fn object(self, entity: impl ToEntity) -> Self {
        self.change(|find| {
            find.object = Some(entity.to_entity()?);
            Ok(())
        })
    }

    /// Only said by this source.
    pub fn source(self, source: impl AsRef<str>) -> Self {
        self.change(|find| {
            find.source = Some(SourceId::new(source)?);
            Ok(())
        })
    }

    /// Only facts whose properties this is true of.
    pub fn matching(self, filter: Filter) -> Self {
        self.set(|find| find.filter = Some(filter))
    }

    /// Only facts that hold at this time. Default: now.
    pub fn valid_at(self, time: Timestamp) -> Self {
        self.set(|find| find.as_of.valid = ValidAt::Time(time))
    }

    /// All facts, whenever they hold.
    pub fn whenever(self) -> Self {
        self.set(|find| find.as_of.valid = ValidAt::Any)
    }

    /// Facts as they were known at this time. Default: now.
    pub fn recorded_at(self, time: Timestamp) -> Self {
        self.set(|find| find.as_of.recorded = Some(time))
    }

    /// Continues behind a fact.
    pub fn after(self, relation: RelationId) -> Self {
        self.set(|find| find.after = Some(relation))
    }
}

/// Options of a question for neighbours.
impl Request<FindNeighbors> {
    /// Only neighbours whose properties this is true of.
    pub fn matching(self, filter: Filter) -> Self {
        self.set(|find| find.filter = Some(filter))
    }

    /// In which order. Default: the oldest fact first.
    pub fn order(self, order: NeighborOrder) -> Self {
        self.set(|find| find.order = order)
    }

    /// Leaves out so many of the first, for the next page.
    pub fn offset(self, offset: usize) -> Self {
        self.set(|find| find.offset = offset)
    }

    /// Asks for the entities within so many hops instead. A filter, an order or an offset does not count then.
    pub fn depth(self, depth: usize) -> Request<FindNeighborhood> {
        self.into_message(|find| {
            let FindNeighbors { entity, follow, limit, .. } = find;
            FindNeighborhood { entities: vec![entity], follow, depth, limit }
        })
    }
}

/// Options of a map of facts.
impl<T> Request<MapRelations, T> {
    /// How many hops. Default: two.
    pub fn depth(self, depth: usize) -> Self {
        self.set(|map| map.depth = depth)
    }
}

/// Options of a path.
impl<T> Request<FindShortestPath, T> {
    /// How many hops at most.
    pub fn hops(self, hops_max: usize) -> Self {
        self.set(|path| path.hops_max = hops_max)
    }
}

/// Options of paths.
impl<T> Request<FindPaths, T> {
    /// How many hops at most. Default: three.
    pub fn hops(self, hops_max: usize) -> Self {
        self.set(|paths| paths.hops_max = hops_max)
    }
}

/// Options of a ranking.
impl<T> Request<RankEntities, T> {
    /// One more seed, which counts this much; those named before count 1.
    pub fn seed(self, entity: impl ToEntity, weight: f64) -> Self {
        self.change(|rank| {
            rank.seeds.push(Seed { entity: entity.to_entity()?, weight });
            Ok(())
        })
    }

    /// How likely a walk goes on: 0 to 0.99. Default: 0.85.
    pub fn damping(self, damping: f64) -> Self {
        self.set(|rank| rank.damping = damping)
    }

    /// How far all scores together may be off: 1e-6 to 0.1. Default: 0.02, at which of the best 20 about
    /// all are those of a hundred steps of the power method.
    pub fn tolerance(self, tolerance: f64) -> Self {
        self.set(|rank| rank.tolerance = tolerance)
    }
}

/// Options of a subgraph.
impl<T> Request<SelectSubgraph, T> {
    /// One more seed, which counts this much; those named before count 1.
    pub fn seed(self, entity: impl ToEntity, weight: f64) -> Self {
        self.change(|subgraph| {
            subgraph.seeds.push(Seed { entity: entity.to_entity()?, weight });
            Ok(())
        })
    }

    /// How many hops from a seed at most. Default: two.
    pub fn depth(self, depth: usize) -> Self {
        self.set(|subgraph| subgraph.depth = depth)
    }

    /// Most entities and most facts. Default: 50 and 100.
    pub fn limits(self, entity_limit: usize, relation_limit: usize) -> Self {
        self.set(|subgraph| (subgraph.entity_limit, subgraph.relation_limit) = (entity_limit, relation_limit))
    }
}
