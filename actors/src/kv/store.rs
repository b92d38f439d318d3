//! What the machinery needs to know of the key–value store, and what the store can be asked.

use larder_protocol::StoreName;
use larder_protocol::change::Change;
use larder_protocol::kv::{
    ApplyTransaction, CompareAndDelete, CompareAndPut, CountValues, DeclareField, DeleteTagged, DeleteValue,
    DeleteValues, DropCollection, ExtendLease, GetValue, GetValues, IncrementValue, ListCollections, PopValue,
    PutIfAbsent, PutValue, PutValues, ReleaseLease, ScanValues, TakeLease, TouchValue,
};
use serde::{Deserialize, Serialize};

use super::memory::KvMemory;
use super::{check, collections, fields, leases, memory, scan, transaction, values};
use crate::handlers;
use crate::sqlite::migration::FileSchema;
use crate::store::{MACHINERY_TABLES, Outcome, ReadContext, Store, StoreDefaults, WriteContext};

/// The key–value store.
#[derive(Debug)]
pub enum Kv {}

/// What a program may set about the key–value store alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KvSettings {
    /// Largest value in bytes, 1 to 512 MiB. Default 16 MiB. Higher: one value can take that much of the queue's budget.
    pub value_bytes_max: usize,
    /// Memory for hot entries in bytes, used only where the folder is opened exclusively. Default 32 MiB; 0: none.
    pub hot_bytes: u64,
}

impl StoreDefaults for KvSettings {}

impl Default for KvSettings {
    fn default() -> Self {
        Self { value_bytes_max: 16 << 20, hot_bytes: 32 << 20 }
    }
}

impl Store for Kv {
    const NAME: StoreName = StoreName::Kv;
    const SCHEMA: FileSchema = FileSchema {
        application_id: 0x4C72_6B76, // "Lrkv"
        page_bytes: 4096,
        migrations: &[MACHINERY_TABLES, include_str!("migrations/0001_entries.sql")],
    };

    type Settings = KvSettings;
    type Memory = KvMemory;

    fn memory(settings: &KvSettings, exclusive: bool) -> KvMemory {
        KvMemory::new(if exclusive { settings.hot_bytes } else { 0 })
    }

    fn committed(memory: &KvMemory, changes: &[Change]) {
        memory.forget(changes);
    }

    fn forget(memory: &KvMemory) {
        memory.forget_all();
    }

    fn sweep(context: &mut WriteContext<'_, Self>, rows_max: usize) -> Outcome<usize> {
        values::sweep(context, rows_max)
    }

    fn check(context: &ReadContext<'_, Self>, found: &mut dyn FnMut(String)) -> Outcome<()> {
        check::check(context, found)
    }

    fn is_run_time_object(name: &str, sql: &str) -> bool {
        fields::FIELDS.is_field_index(name, sql)
    }
}

handlers! {
    Kv {
        write PutValue => values::put;
        write PutValues => values::put_many;
        write PutIfAbsent => values::put_if_absent;
        write CompareAndPut => values::compare_and_put;
        make_room DeleteValue => values::delete;
        make_room DeleteValues => values::delete_many;
        make_room CompareAndDelete => values::compare_and_delete;
        make_room DeleteTagged => values::delete_tagged;
        write IncrementValue => values::increment;
        write TouchValue => values::touch;
        make_room PopValue => values::pop;
        write TakeLease => leases::take;
        write ExtendLease => leases::extend;
        make_room ReleaseLease => leases::release;
        write ApplyTransaction => transaction::apply;
        make_room DropCollection => collections::drop_collection;
        write DeclareField => fields::declare;
        in_place GetValue => values::get, memory memory::get;
        sized GetValues where |message| message.keys.len() <= values::KEYS_IN_PLACE_MAX => values::get_many;
        on_thread ScanValues => scan::scan;
        on_thread CountValues => scan::count;
        on_thread ListCollections => collections::list;
    }
}
