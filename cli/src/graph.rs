//! `larder graph`: entities, the facts that relate them, and ways between them.
//!
//! Start at [`Command`]; [`EntityRow`] and [`RelationRow`] are what is printed and exported.

use clap::{Args, Subcommand, ValueEnum};
use futures::{Stream, StreamExt, TryStreamExt};
use larder::protocol::graph::{
    AsOf, Entity, EntityHit, EntityId, EntityRef, EntitySummary, FindNeighbors, FindRelations, Follow, GraphPath,
    ListEntities, Neighbor, NeighborOrder, RankedEntity, Reached, Relation, RelationId, SchemaTriple, Step, ToEntity,
    Traversal, ValidAt,
};
use larder::protocol::{Label, StoreName};
use larder::{Graph, Larder, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::arguments::{Page, at_least_one};
use crate::failure::Failure;
use crate::folder::Folder;
use crate::json;
use crate::list::{self, PAGE_ROWS, Row};
use crate::output::{BOLD, Output};
use crate::table::{Column, Table};
use crate::text;
use crate::time;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List entities
    List(List),
    /// Print an entity, and the facts about it
    Show(Show),
    /// Find entities by name, by the beginning of a name, misspelt, or by the words of their descriptions
    Find(Find),
    /// List what an entity is related to
    Neighbors(Neighbors),
    /// Print the shortest way from one entity to another
    Path(PathBetween),
    /// List the entities that matter most to these (personalised PageRank)
    Rank(Rank),
    /// List facts
    Facts(Facts),
    /// Print which kinds of entities there are, and how they are related
    Schema(Schema),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only entities of this label
    #[arg(long)]
    label: Option<String>,
    #[command(flatten)]
    page: Page,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    entity: Named,
    /// Most facts to print
    #[arg(short = 'n', long, default_value_t = 100, value_name = "ROWS", value_parser = at_least_one)]
    limit: usize,
}

/// An entity by its name.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// Its name, or an alias
    name: String,
    /// Its label, where several entities have the name
    #[arg(long)]
    label: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Find {
    /// What to look for
    text: String,
    /// How it is compared
    #[arg(long, value_enum, default_value_t = By::Misspelt)]
    by: By,
    /// Only entities of this label
    #[arg(long)]
    label: Option<String>,
    /// Most entities to print
    #[arg(short = 'n', long, default_value_t = 10, value_name = "ROWS", value_parser = at_least_one)]
    limit: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// The name or an alias, in any case
    Name,
    /// The beginning of a name
    Prefix,
    /// A name that is written nearly so
    Misspelt,
    /// Words of names and descriptions
    Words,
}

/// Which facts are followed.
#[derive(Debug, Args)]
pub(crate) struct Following {
    /// In which direction facts are followed
    #[arg(long, value_enum, default_value_t = Direction::Both)]
    direction: Direction,
    /// Only facts of this kind; may be given several times
    #[arg(long = "relation", value_name = "LABEL")]
    relations: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Direction {
    Out,
    In,
    Both,
}

#[derive(Debug, Args)]
pub(crate) struct Neighbors {
    #[command(flatten)]
    entity: Named,
    #[command(flatten)]
    following: Following,
    /// How many facts away; over 1, entities are listed with their distance
    #[arg(long, default_value_t = 1, value_name = "HOPS", value_parser = at_least_one)]
    depth: usize,
    /// Most entities to print
    #[arg(short = 'n', long, default_value_t = 100, value_name = "ROWS", value_parser = at_least_one)]
    limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct PathBetween {
    /// The name of the entity that it begins at
    from: String,
    /// The name of the entity that it ends at
    to: String,
    /// The label of the first, where several entities have its name
    #[arg(long, value_name = "LABEL")]
    from_label: Option<String>,
    /// The label of the second
    #[arg(long, value_name = "LABEL")]
    to_label: Option<String>,
    #[command(flatten)]
    following: Following,
    /// Most facts on the way
    #[arg(long, value_name = "HOPS", value_parser = at_least_one)]
    hops: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct Rank {
    /// The names of the entities to start from
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    following: Following,
    /// Most entities to print
    #[arg(short = 'n', long, default_value_t = 10, value_name = "ROWS", value_parser = at_least_one)]
    limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Facts {
    /// Only facts about this entity
    #[arg(long, value_name = "NAME")]
    subject: Option<String>,
    /// Only facts of this kind
    #[arg(long, value_name = "LABEL")]
    relation: Option<String>,
    /// Only facts that relate to this entity
    #[arg(long, value_name = "NAME")]
    object: Option<String>,
    /// Only facts that this source says, such as a passage
    #[arg(long)]
    source: Option<String>,
    /// Also facts that hold no longer, or not yet
    #[arg(long)]
    whenever: bool,
    #[command(flatten)]
    page: Page,
}

#[derive(Debug, Args)]
pub(crate) struct Schema {
    /// Most kinds to print
    #[arg(short = 'n', long, default_value_t = 100, value_name = "ROWS", value_parser = at_least_one)]
    limit: usize,
}

pub(crate) async fn run(command: Command, folder: &Folder, output: &mut Output) -> Result<(), Failure> {
    let Some(larder) = folder.open_store(StoreName::Graph).await? else { return without_store(&command, output) };
    let graph = larder.graph();
    let done = match command {
        Command::List(list) => self::list(list, &larder, output).await,
        Command::Show(show) => self::show(show, &larder, output).await,
        Command::Find(find) => self::find(find, &graph, output).await,
        Command::Neighbors(neighbors) => self::neighbors(neighbors, &larder, output).await,
        Command::Path(path) => self::path(path, &graph, output).await,
        Command::Rank(rank) => self::rank(rank, &graph, output).await,
        Command::Facts(facts) => self::facts(facts, &larder, output).await,
        Command::Schema(schema) => self::schema(&schema, &graph, output).await,
    };
    larder.close().await;
    done.map_err(|failure| match failure {
        Failure::Told(told) if told.class == larder::Class::Conflict => {
            Failure::Told(told).with_hint("say which with --label")
        }
        other => other,
    })
}

/// Answers as an empty graph would.
fn without_store(command: &Command, output: &mut Output) -> Result<(), Failure> {
    let name = match command {
        Command::List(_) | Command::Find(_) | Command::Facts(_) => return Ok(()),
        Command::Schema(_) => return output.answer(&SchemaView::default(), print_schema),
        Command::Show(Show { entity, .. }) | Command::Neighbors(Neighbors { entity, .. }) => Some(&entity.name),
        Command::Path(path) => Some(&path.from),
        Command::Rank(rank) => rank.names.first(),
    };
    Err(absent(name.map_or("", String::as_str)))
}

fn absent(name: &str) -> Failure {
    Failure::not_found(format!("entity {name:?} is not there")).with_hint("see `larder graph find`")
}

impl Named {
    fn entity(&self) -> Result<EntityRef, Failure> {
        entity(&self.name, self.label.as_deref())
    }
}

fn entity(name: &str, label: Option<&str>) -> Result<EntityRef, Failure> {
    Ok(match label {
        Some(label) => EntityRef::labelled(label, name)?,
        None => name.to_entity()?,
    })
}

impl Following {
    fn follow(&self) -> Result<Follow, Failure> {
        let direction = match self.direction {
            Direction::Out => Traversal::Outgoing,
            Direction::In => Traversal::Incoming,
            Direction::Both => Traversal::Both,
        };
        let labels = self.relations.iter().map(Label::new).collect::<Result<_, _>>()?;
        Ok(Follow { direction, labels, ..Follow::default() })
    }
}

async fn list(list: List, larder: &Larder, output: &mut Output) -> Result<(), Failure> {
    let after = list.page.after.as_deref().map(entity_id).transpose()?;
    let label = list.label.map(Label::new).transpose()?;
    list::print(output, list.page.limit, entities(larder, label, after)).await
}

fn entity_id(text: &str) -> Result<EntityId, Failure> {
    text.parse().map(EntityId).map_err(|_| Failure::usage(format!("--after {text:?} is no entity's id")))
}

#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    entity: EntityRow,
    facts: Vec<RelationRow>,
}

async fn show(show: Show, larder: &Larder, output: &mut Output) -> Result<(), Failure> {
    let found = larder.graph().get(show.entity.entity()?).await?.ok_or_else(|| absent(&show.entity.name))?;
    let about = |as_subject: bool| {
        let (id, entity) = (EntityRef::Id(found.id), None);
        let (subject, object) = if as_subject { (Some(id), entity) } else { (entity, Some(id)) };
        relations(larder, FindRelations { subject, object, ..every_relation() }, None)
    };
    // A fact about itself is said once.
    let incoming = about(false).try_filter(|fact| std::future::ready(fact.subject.id != fact.object.id));
    let facts = about(true).chain(incoming).take(show.limit).try_collect().await?;
    output.answer(&Shown { entity: found.into(), facts }, |output, shown| {
        let EntityRow { label, name, aliases, description, properties, .. } = &shown.entity;
        let heading = output.styled(BOLD, &text::line(name));
        output.line(format!("{heading} ({})", text::line(label)))?;
        if !aliases.is_empty() {
            output.line(format!("  also {}", text::line(&aliases.join(", "))))?;
        }
        if let Some(description) = description {
            output.line(format!("  {}", text::line(description)))?;
        }
        if let Some(properties) = properties {
            output.line(format!("  {}", text::line(properties.get())))?;
        }
        print_table(output, &shown.facts)
    })
}

fn print_table<R: Row>(output: &mut Output, rows: &[R]) -> Result<(), Failure> {
    let mut table = Table::new(R::COLUMNS);
    rows.iter().for_each(|row| table.add(&row.cells()));
    table.print(output)
}

async fn find(find: Find, graph: &Graph, output: &mut Output) -> Result<(), Failure> {
    let mut request = match find.by {
        By::Name => graph.named(find.text),
        By::Prefix => graph.names_beginning(find.text),
        By::Misspelt => graph.misspelt(find.text),
        By::Words => graph.search(find.text),
    };
    if let Some(label) = find.label {
        request = request.label(label);
    }
    let hits = request.limit(find.limit).await?;
    list::print(output, find.limit, ready(hits, HitRow::from)).await
}

/// Returns rows that are all there.
fn ready<T, R>(all: Vec<T>, row: impl FnMut(T) -> R) -> impl Stream<Item = Result<R, Failure>> {
    futures::stream::iter(all.into_iter().map(row).map(Ok))
}

async fn neighbors(neighbors: Neighbors, larder: &Larder, output: &mut Output) -> Result<(), Failure> {
    let Neighbors { entity, following, depth, limit } = neighbors;
    let (entity, follow) = (entity.entity()?, following.follow()?);
    if depth > 1 {
        let mut request = larder.graph().neighborhood([entity], depth).direction(follow.direction).limit(limit);
        for label in follow.labels {
            request = request.relation(label);
        }
        return list::print(output, limit, ready(request.await?, ReachedRow::from)).await;
    }
    let (filter, order, offset) = (None, NeighborOrder::default(), 0);
    let found = larder.ask(FindNeighbors { entity, follow, filter, order, offset, limit }).await?;
    list::print(output, limit, ready(found, NeighborRow::from)).await
}

async fn path(path: PathBetween, graph: &Graph, output: &mut Output) -> Result<(), Failure> {
    let (from, to) = (entity(&path.from, path.from_label.as_deref())?, entity(&path.to, path.to_label.as_deref())?);
    let follow = path.following.follow()?;
    let mut request = graph.shortest_path(from, to).direction(follow.direction);
    for label in follow.labels {
        request = request.relation(label);
    }
    if let Some(hops) = path.hops {
        request = request.hops(hops);
    }
    let none = || Failure::not_found(format!("no such way leads from {:?} to {:?}", path.from, path.to));
    let found = request.await?.ok_or_else(none)?;
    output.answer(&PathView::from(found), |output, path| {
        let mut line = text::line(&path.start.name).into_owned();
        for step in &path.steps {
            let label = text::line(&step.relation);
            line += &if step.is_forward { format!(" -[{label}]-> ") } else { format!(" <-[{label}]- ") };
            line += &text::line(&step.entity.name);
        }
        output.line(line)
    })
}

async fn rank(rank: Rank, graph: &Graph, output: &mut Output) -> Result<(), Failure> {
    let follow = rank.following.follow()?;
    let mut request = graph.rank(&rank.names).direction(follow.direction).limit(rank.limit);
    for label in follow.labels {
        request = request.relation(label);
    }
    list::print(output, rank.limit, ready(request.await?, RankRow::from)).await
}

async fn facts(facts: Facts, larder: &Larder, output: &mut Output) -> Result<(), Failure> {
    let Facts { subject, relation, object, source, whenever, page } = facts;
    let mut find = every_relation();
    find.subject = subject.map(|name| entity(&name, None)).transpose()?;
    find.object = object.map(|name| entity(&name, None)).transpose()?;
    find.label = relation.map(Label::new).transpose()?;
    find.source = source.map(larder::protocol::SourceId::new).transpose()?;
    if !whenever {
        find.as_of.valid = ValidAt::Now;
    }
    let after = page.after.map(|text| {
        let refused = || Failure::usage(format!("--after {text:?} is no fact's id"));
        text.parse().map(RelationId).map_err(|_| refused())
    });
    list::print(output, page.limit, relations(larder, find, after.transpose()?)).await
}

#[derive(Debug, Default, Serialize)]
struct SchemaView {
    labels: Vec<LabelCount>,
    facts: Vec<TripleCount>,
}

#[derive(Debug, Serialize)]
struct LabelCount {
    label: String,
    entities: u64,
}

#[derive(Debug, Serialize)]
struct TripleCount {
    subject: String,
    relation: String,
    object: String,
    count: u64,
}

async fn schema(schema: &Schema, graph: &Graph, output: &mut Output) -> Result<(), Failure> {
    let found = graph.schema(schema.limit).await?;
    let labels = found.entity_labels.into_iter();
    let labels = labels.map(|(label, entities)| LabelCount { label: label.to_string(), entities }).collect();
    let facts = found.triples.into_iter().map(|SchemaTriple { subject, relation, object, count }| TripleCount {
        subject: subject.to_string(),
        relation: relation.to_string(),
        object: object.to_string(),
        count,
    });
    output.answer(&SchemaView { labels, facts: facts.collect() }, print_schema)
}

fn print_schema(output: &mut Output, schema: &SchemaView) -> Result<(), Failure> {
    let mut labels = Table::new(const { &[Column::text("LABEL"), Column::number("ENTITIES")] });
    schema.labels.iter().for_each(|kind| labels.add(&[kind.label.clone(), kind.entities.to_string()]));
    labels.print(output)?;
    if !schema.facts.is_empty() {
        output.line("")?;
    }
    let mut facts = Table::new(
        const { &[Column::text("SUBJECT"), Column::text("RELATION"), Column::text("OBJECT"), Column::number("FACTS")] },
    );
    for TripleCount { subject, relation, object, count } in &schema.facts {
        facts.add(&[subject.clone(), relation.clone(), object.clone(), count.to_string()]);
    }
    facts.print(output)
}

/// Returns every entity of a label behind one, in the order of their ids.
pub(crate) fn entities(
    larder: &Larder,
    label: Option<Label>,
    after: Option<EntityId>,
) -> impl Stream<Item = Result<EntityRow, Failure>> {
    let entities = list::pages(after, move |after| {
        let (larder, label) = (larder.clone(), label.clone());
        async move {
            let page = larder.ask(ListEntities { label, filter: None, after, limit: PAGE_ROWS }).await?;
            // A page may end early by its size, so that only an empty one is the last.
            let next = page.last().map(|last| last.id);
            Ok((page, next))
        }
    });
    entities.map_ok(EntityRow::from)
}

/// Returns a question for every fact, whenever it holds.
pub(crate) fn every_relation() -> FindRelations {
    let as_of = AsOf { valid: ValidAt::Any, recorded: None };
    FindRelations {
        subject: None,
        label: None,
        object: None,
        source: None,
        filter: None,
        as_of,
        after: None,
        limit: PAGE_ROWS,
    }
}

/// Returns the facts that are asked for behind one, in the order of their ids.
pub(crate) fn relations(
    larder: &Larder,
    find: FindRelations,
    after: Option<RelationId>,
) -> impl Stream<Item = Result<RelationRow, Failure>> {
    let relations = list::pages(after, move |after| {
        let (larder, find) = (larder.clone(), FindRelations { after, ..find.clone() });
        async move { larder.ask(find).await.map(|page| (page.relations, page.next)) }
    });
    relations.map_ok(RelationRow::from)
}

/// What an entity is called.
#[derive(Debug, Clone, Serialize)]
struct NameView {
    id: u64,
    label: String,
    name: String,
}

impl From<EntitySummary> for NameView {
    fn from(entity: EntitySummary) -> Self {
        Self { id: entity.id.0, label: entity.label.to_string(), name: entity.name.to_string() }
    }
}

/// An entity as it is printed and exported.
#[derive(Debug, Serialize)]
pub(crate) struct EntityRow {
    id: u64,
    label: String,
    name: String,
    aliases: Vec<String>,
    description: Option<String>,
    properties: Option<Box<RawValue>>,
    created_ms: i64,
    updated_ms: i64,
}

impl From<Entity> for EntityRow {
    fn from(entity: Entity) -> Self {
        Self {
            id: entity.id.0,
            label: entity.label.to_string(),
            name: entity.name.to_string(),
            aliases: entity.aliases.iter().map(ToString::to_string).collect(),
            description: entity.description,
            properties: json::stored(entity.properties.as_ref()),
            created_ms: entity.created.0,
            updated_ms: entity.updated.0,
        }
    }
}

impl Row for EntityRow {
    const COLUMNS: &'static [Column] =
        &[Column::number("ID"), Column::text("LABEL"), Column::text("NAME"), Column::text("DESCRIPTION")];

    fn cells(&self) -> Vec<String> {
        let description = text::preview(self.description.as_deref().unwrap_or_default(), 60);
        vec![self.id.to_string(), self.label.clone(), self.name.clone(), description]
    }

    fn cursor(&self) -> String {
        self.id.to_string()
    }
}

/// A fact as it is printed and exported.
#[derive(Debug, Serialize)]
pub(crate) struct RelationRow {
    id: u64,
    subject: NameView,
    relation: String,
    object: NameView,
    qualifier: String,
    weight: f64,
    properties: Option<Box<RawValue>>,
    valid_from_ms: Option<i64>,
    valid_until_ms: Option<i64>,
    recorded_ms: i64,
    superseded_ms: Option<i64>,
    sources: Vec<String>,
}

impl From<Relation> for RelationRow {
    fn from(relation: Relation) -> Self {
        Self {
            id: relation.id.0,
            subject: relation.subject.into(),
            relation: relation.label.to_string(),
            object: relation.object.into(),
            qualifier: relation.qualifier,
            weight: relation.weight,
            properties: json::stored(relation.properties.as_ref()),
            valid_from_ms: relation.validity.from.map(|time| time.0),
            valid_until_ms: relation.validity.until.map(|time| time.0),
            recorded_ms: relation.recorded.0,
            superseded_ms: relation.superseded.map(|time| time.0),
            sources: relation.sources.iter().map(ToString::to_string).collect(),
        }
    }
}

impl Row for RelationRow {
    const COLUMNS: &'static [Column] = &[
        Column::number("ID"),
        Column::text("SUBJECT"),
        Column::text("RELATION"),
        Column::text("OBJECT"),
        Column::text("UNTIL"),
        Column::text("SOURCES"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.subject.name.clone(),
            self.relation.clone(),
            self.object.name.clone(),
            time::shown_or_none(self.valid_until_ms.map(Timestamp)),
            text::preview(&self.sources.join(", "), 60),
        ]
    }

    fn cursor(&self) -> String {
        self.id.to_string()
    }
}

/// An entity that was found.
#[derive(Debug, Serialize)]
struct HitRow {
    #[serde(flatten)]
    entity: NameView,
    /// The alias by which it was found.
    matched: Option<String>,
    score: f64,
}

impl From<EntityHit> for HitRow {
    fn from(hit: EntityHit) -> Self {
        Self { entity: hit.entity.into(), matched: hit.matched.map(|name| name.to_string()), score: hit.score }
    }
}

impl Row for HitRow {
    const COLUMNS: &'static [Column] =
        &[Column::number("SCORE"), Column::text("LABEL"), Column::text("NAME"), Column::text("FOUND AS")];

    fn cells(&self) -> Vec<String> {
        let NameView { label, name, .. } = self.entity.clone();
        vec![format!("{:.2}", self.score), label, name, self.matched.clone().unwrap_or_default()]
    }

    fn cursor(&self) -> String {
        self.entity.id.to_string()
    }
}

/// An entity that one fact relates.
#[derive(Debug, Serialize)]
struct NeighborRow {
    #[serde(flatten)]
    entity: NameView,
    relation: String,
    relation_id: u64,
    is_outgoing: bool,
    weight: f64,
}

impl From<Neighbor> for NeighborRow {
    fn from(neighbor: Neighbor) -> Self {
        let Neighbor { entity, relation, label, is_outgoing, weight } = neighbor;
        Self { entity: entity.into(), relation: label.to_string(), relation_id: relation.0, is_outgoing, weight }
    }
}

impl Row for NeighborRow {
    const COLUMNS: &'static [Column] = &[Column::text("RELATION"), Column::text("LABEL"), Column::text("NAME")];

    fn cells(&self) -> Vec<String> {
        let NameView { label, name, .. } = self.entity.clone();
        let relation =
            if self.is_outgoing { format!("-[{}]->", self.relation) } else { format!("<-[{}]-", self.relation) };
        vec![relation, label, name]
    }

    fn cursor(&self) -> String {
        self.entity.id.to_string()
    }
}

/// An entity some facts away.
#[derive(Debug, Serialize)]
struct ReachedRow {
    #[serde(flatten)]
    entity: NameView,
    hops: usize,
}

impl From<Reached> for ReachedRow {
    fn from(reached: Reached) -> Self {
        Self { entity: reached.entity.into(), hops: reached.hops }
    }
}

impl Row for ReachedRow {
    const COLUMNS: &'static [Column] = &[Column::number("HOPS"), Column::text("LABEL"), Column::text("NAME")];

    fn cells(&self) -> Vec<String> {
        let NameView { label, name, .. } = self.entity.clone();
        vec![self.hops.to_string(), label, name]
    }

    fn cursor(&self) -> String {
        self.entity.id.to_string()
    }
}

/// An entity with its rank.
#[derive(Debug, Serialize)]
struct RankRow {
    #[serde(flatten)]
    entity: NameView,
    score: f64,
}

impl From<RankedEntity> for RankRow {
    fn from(ranked: RankedEntity) -> Self {
        Self { entity: ranked.entity.into(), score: ranked.score }
    }
}

impl Row for RankRow {
    const COLUMNS: &'static [Column] = &[Column::number("RANK"), Column::text("LABEL"), Column::text("NAME")];

    fn cells(&self) -> Vec<String> {
        let NameView { label, name, .. } = self.entity.clone();
        vec![format!("{:.4}", self.score), label, name]
    }

    fn cursor(&self) -> String {
        self.entity.id.to_string()
    }
}

/// A way through the graph.
#[derive(Debug, Serialize)]
struct PathView {
    start: NameView,
    steps: Vec<StepView>,
}

#[derive(Debug, Serialize)]
struct StepView {
    relation: String,
    relation_id: u64,
    is_forward: bool,
    entity: NameView,
}

impl From<GraphPath> for PathView {
    fn from(path: GraphPath) -> Self {
        let step = |Step { relation, label, is_forward, entity }: Step| StepView {
            relation: label.to_string(),
            relation_id: relation.0,
            is_forward,
            entity: entity.into(),
        };
        Self { start: path.start.into(), steps: path.steps.into_iter().map(step).collect() }
    }
}
