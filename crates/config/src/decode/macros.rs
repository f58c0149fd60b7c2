//! How is a type declared? Macros that make a structure, an enum or a group of fields, and its decoding.

/// Declares structures that are read from mappings.
///
/// Each gets a field `at`, `Default` and [`Decode`]. A field is written `name: Type`, `name: Type = default`, and
/// `name as "spelling": Type` where YAML does not use the camelCase of the name. Fields in a trailing
/// `oneof { name: Type }` are groups of which at most one member can be given; they become `Option<Type>`.
macro_rules! message {
    ($(
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $(
                $(#[$field_meta:meta])*
                $field:ident $(as $spelling:literal)? : $type:ty $(= $default:expr)?
            ),* $(,)?
            $(;oneof {
                $(
                    $(#[$oneof_meta:meta])*
                    $oneof:ident : $oneof_type:ty
                ),* $(,)?
            })?
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        $vis struct $name {
            /// Where it is written.
            pub at: $crate::position::Position,
            $( $(#[$field_meta])* pub $field: $type, )*
            $($( $(#[$oneof_meta])* pub $oneof: Option<$oneof_type>, )*)?
        }

        impl Default for $name {
            fn default() -> Self {
                $name {
                    at: $crate::position::Position::UNKNOWN,
                    $( $field: $crate::decode::message!(@default $type $(, $default)?), )*
                    $($( $oneof: None, )*)?
                }
            }
        }

        impl $crate::decode::Decode for $name {
            fn decode(node: &$crate::node::Node, cx: &mut $crate::decode::Decoder<'_>) -> Option<Self> {
                const FIELDS: &[$crate::decode::Field] = &[
                    $( $crate::decode::Field {
                        name: stringify!($field),
                        spelling: $crate::decode::message!(@spelling $($spelling)?),
                    }, )*
                ];
                const ONEOFS: &[&[$crate::decode::Field]] =
                    &[$($( <$oneof_type as $crate::decode::Oneof>::FIELDS, )*)?];
                #[allow(unused_variables, reason = "a message without fields uses none of them")]
                let fields = cx.open(node, stringify!($name), FIELDS, ONEOFS)?;
                #[allow(unused_mut, unused_variables, reason = "a message without fields uses none of them")]
                let mut index = 0..FIELDS.len();
                $(
                    let $field: Option<$type> = {
                        let index = index.next()?;
                        let default = $crate::decode::message!(@given $($default)?);
                        cx.field(node, &fields, index, &FIELDS[index], default)
                    };
                )*
                #[allow(unused_mut, unused_variables, reason = "a message without fields uses none of them")]
                let mut group = 0..ONEOFS.len();
                $($( let $oneof: Option<Option<$oneof_type>> = cx.oneof(&fields, group.next()?); )*)?
                Some($name {
                    at: node.at,
                    $( $field: $field?, )*
                    $($( $oneof: $oneof?, )*)?
                })
            }
        }
    )*};
    (@default $type:ty, $default:expr) => { $default };
    (@default $type:ty) => { <$type>::default() };
    (@given $default:expr) => { Some($default) };
    (@given) => { None };
    (@spelling $spelling:literal) => { Some($spelling) };
    (@spelling) => { None };
}

/// Declares a choice of names, each with its number in protobuf. The first is the default.
macro_rules! enumeration {
    ($(
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            $( $(#[$variant_meta:meta])* $variant:ident = $number:literal $text:literal ),* $(,)?
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis enum $name { $( $(#[$variant_meta])* $variant = $number, )* }

        impl $name {
            const ALL: &'static [$name] = &[$( $name::$variant, )*];

            /// The name as it is written in YAML.
            pub fn as_str(self) -> &'static str {
                match self { $( $name::$variant => $text, )* }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                $name::ALL[0]
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::decode::Decode for $name {
            fn decode(node: &$crate::node::Node, cx: &mut $crate::decode::Decoder<'_>) -> Option<Self> {
                const NAMES: &[(i64, &str)] = &[$( ($number, $text), )*];
                let index = $crate::decode::enumeration_index(node, NAMES, cx)?;
                $name::ALL.get(index).copied()
            }

            fn absent() -> Option<Self> {
                Some($name::default())
            }
        }
    )*};
}

/// Declares fields of which one can be given: an enum whose variants hold the field's value.
macro_rules! oneof {
    ($(
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            $( $(#[$variant_meta:meta])* $variant:ident($type:ty) as $field:literal ),* $(,)?
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        $vis enum $name { $( $(#[$variant_meta])* $variant($type), )* }

        impl $crate::decode::Oneof for $name {
            const FIELDS: &'static [$crate::decode::Field] =
                &[$( $crate::decode::Field { name: $field, spelling: None }, )*];

            fn decode_member(
                index: usize,
                node: &$crate::node::Node,
                cx: &mut $crate::decode::Decoder<'_>,
            ) -> Option<Self> {
                let mut member = 0..;
                $(
                    if member.next() == Some(index) {
                        return <$type as $crate::decode::Decode>::decode(node, cx).map($name::$variant);
                    }
                )*
                None
            }
        }
    )*};
}

pub(crate) use {enumeration, message, oneof};
