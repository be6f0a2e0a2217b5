//! How often other backends may be asked, and who is better left alone.

mod budget;
mod outliers;

pub(crate) use budget::Budget;
pub(crate) use outliers::Outliers;
