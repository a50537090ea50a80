// For texts whose alias T is f16.
//!enable f16
