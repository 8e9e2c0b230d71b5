//! What the kernel says in numbers and everybody else in words: members of an enumeration, each with a number that is never
//! reused and one name, which stands in maps, `bpftool`, metrics, logs and the documentation alike.

/// An enumeration of that kind: `Member = number, "name";`. Gives it `ALL`, `of_number` and `name`.
macro_rules! numbered {
    (
        $(#[$about:meta])*
        pub enum $Name:ident: $number:ident {
            $($(#[$member_about:meta])* $Member:ident = $value:literal, $name:literal;)*
        }
    ) => {
        $(#[$about])*
        #[repr($number)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $Name {
            $($(#[$member_about])* $Member = $value,)*
        }

        impl $Name {
            pub const ALL: [Self; [$($value),*].len()] = [$(Self::$Member),*];

            /// `None`: of another version's.
            #[inline(always)]
            #[must_use]
            pub const fn of_number(number: $number) -> Option<Self> {
                Some(match number {
                    $($value => Self::$Member,)*
                    _ => return None,
                })
            }

            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$Member => $name,)*
                }
            }
        }
    };
}

/// The field that counts each reason, so that `bpftool map dump` names it: `Reason::Member => field`.
macro_rules! counted_by {
    ($Reason:ident, $Counters:ident: $of:ident, $of_mut:ident { $($Member:ident => $field:ident,)* }) => {
        impl $Counters {
            #[inline(always)]
            #[must_use]
            pub const fn $of(&self, reason: $Reason) -> &$crate::counters::Tally {
                match reason {
                    $($Reason::$Member => &self.$field,)*
                }
            }

            #[inline(always)]
            pub const fn $of_mut(&mut self, reason: $Reason) -> &mut $crate::counters::Tally {
                match reason {
                    $($Reason::$Member => &mut self.$field,)*
                }
            }
        }
    };
}

pub(crate) use {counted_by, numbered};
