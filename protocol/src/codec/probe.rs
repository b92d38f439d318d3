//! A serializer that writes nothing and counts what `guard` will count, so that nothing unreadable is ever stored.
//!
//! Start at [`count_items`].
//!
//! Always true: a value costs the same nesting and items here as in `guard`. Tuples and structs count their fields as
//! items there (the formats do not tell them from sequences), so here, too.

use std::cell::Cell;
use std::fmt;

use serde::{Serialize, Serializer, ser};

use crate::limits::ENCODED_DEPTH_MAX;

/// Returns how many items `value` holds; an error when it is nested too deeply or refuses to be serialised.
pub(super) fn count_items<T: Serialize + ?Sized>(value: &T) -> Result<usize, Refused> {
    let items = Cell::new(0);
    value.serialize(Probe { depth_left: ENCODED_DEPTH_MAX, items: &items })?;
    Ok(items.get())
}

/// Why a value cannot be encoded.
#[derive(Debug)]
pub(super) struct Refused(&'static str);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Refused {}

impl ser::Error for Refused {
    // The type's own text may quote the value, and errors never hold stored values.
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self("its type refuses to be serialised")
    }
}

#[derive(Clone, Copy)]
struct Probe<'a> {
    depth_left: usize,
    items: &'a Cell<usize>,
}

impl Probe<'_> {
    fn descend(self) -> Result<Self, Refused> {
        match self.depth_left.checked_sub(1) {
            Some(depth_left) => Ok(Self { depth_left, ..self }),
            None => Err(Refused("it is nested too deeply")),
        }
    }

    fn item<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Refused> {
        self.items.set(self.items.get().saturating_add(1));
        value.serialize(self)
    }
}

macro_rules! count_nothing {
    ($($method:ident: $type:ty,)*) => {
        $(fn $method(self, _: $type) -> Result<(), Refused> {
            Ok(())
        })*
    };
}

impl Serializer for Probe<'_> {
    type Ok = ();
    type Error = Refused;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    count_nothing! {
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_i128: i128, serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_u128: u128, serialize_f32: f32, serialize_f64: f64, serialize_char: char, serialize_str: &str,
        serialize_bytes: &[u8], serialize_unit_struct: &'static str,
    }

    fn serialize_none(self) -> Result<(), Refused> {
        Ok(())
    }

    fn serialize_unit(self) -> Result<(), Refused> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Refused> {
        value.serialize(self.descend()?)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), Refused> {
        self.descend().map(|_| ())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Refused> {
        value.serialize(self.descend()?)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        value.serialize(self.descend()?)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Refused> {
        self.descend()
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Refused> {
        self.descend()
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Refused> {
        self.descend()
    }

    fn serialize_tuple_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Self, Refused> {
        self.descend()?.descend()
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, Refused> {
        self.descend()
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Refused> {
        self.descend()
    }

    fn serialize_struct_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Self, Refused> {
        self.descend()?.descend()
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, _: &T) -> Result<(), Refused> {
        Ok(())
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

impl ser::SerializeSeq for Probe<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        self.item(value)
    }

    fn end(self) -> Result<(), Refused> {
        Ok(())
    }
}

impl ser::SerializeTuple for Probe<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        self.item(value)
    }

    fn end(self) -> Result<(), Refused> {
        Ok(())
    }
}

impl ser::SerializeMap for Probe<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Refused> {
        self.item(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        value.serialize(*self)
    }

    fn end(self) -> Result<(), Refused> {
        Ok(())
    }
}

macro_rules! count_fields {
    ($($compound:ident $method:ident ($($key:ty)?);)*) => {
        $(impl ser::$compound for Probe<'_> {
            type Ok = ();
            type Error = Refused;

            fn $method<T: Serialize + ?Sized>(&mut self, $(_: $key,)? value: &T) -> Result<(), Refused> {
                self.item(value)
            }

            fn end(self) -> Result<(), Refused> {
                Ok(())
            }
        })*
    };
}

count_fields! {
    SerializeTupleStruct serialize_field ();
    SerializeTupleVariant serialize_field ();
    SerializeStruct serialize_field (&'static str);
    SerializeStructVariant serialize_field (&'static str);
}
