//! Embedded, supervised storage runtime for local AI applications.
