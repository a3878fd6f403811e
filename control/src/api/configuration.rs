//! `/api/v1/settings` and `/api/v1/config`: what is not one service.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::App;
use super::extract::Body;
use super::problem::{ChangeProblems, Rejection, WriteProblems};
use super::write::{Conditions, Tagged, Write, WriteQuery};
use crate::director::{Director, Resource};
use crate::model::{Document, Outcome, Settings};

/// Settings to change, as a JSON merge patch (RFC 7396): what is left out stays, and `null` puts the default back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SettingsPatch {
    /// 0 or 1.
    #[schema(maximum = 1)]
    pub sloppy_tcp: Option<u8>,
    /// 0 or 1.
    #[schema(maximum = 1)]
    pub sloppy_sctp: Option<u8>,
    /// 0 or 1.
    #[schema(maximum = 1)]
    pub schedule_icmp: Option<u8>,
    /// 0 or 1.
    #[schema(maximum = 1)]
    pub nat_icmp_send: Option<u8>,
    /// 0 or 1.
    #[schema(maximum = 1)]
    pub pmtu_disc: Option<u8>,
    /// 0 or 1.
    #[schema(maximum = 1)]
    pub expire_nodest_conn: Option<u8>,
    /// 0 or 1.
    #[schema(maximum = 1)]
    pub expire_quiescent_template: Option<u8>,
    /// 0 to 7.
    #[schema(maximum = 7)]
    pub conn_reuse_mode: Option<u8>,
    /// 0 to 3.
    #[schema(maximum = 3)]
    pub drop_entry: Option<u8>,
    /// 0 to 3.
    #[schema(maximum = 3)]
    pub drop_packet: Option<u8>,
    /// 0 to 3.
    #[schema(maximum = 3)]
    pub secure_tcp: Option<u8>,
    /// Percent, 0 to 100.
    #[schema(maximum = 100)]
    pub amemthresh: Option<u8>,
    /// 0 to 2147483647.
    #[schema(maximum = 2_147_483_647)]
    pub am_droprate: Option<u32>,
    /// Seconds, 0 to 2678400.
    #[schema(maximum = 2_678_400)]
    pub lblc_expiration: Option<u32>,
    /// Seconds, 0 to 2678400.
    #[schema(maximum = 2_678_400)]
    pub lblcr_expiration: Option<u32>,
    /// Seconds, 1 to 2678400.
    #[schema(minimum = 1, maximum = 2_678_400)]
    pub timeout_tcp: Option<u32>,
    /// Seconds, 1 to 2678400.
    #[schema(minimum = 1, maximum = 2_678_400)]
    pub timeout_tcpfin: Option<u32>,
    /// Seconds, 1 to 2678400.
    #[schema(minimum = 1, maximum = 2_678_400)]
    pub timeout_udp: Option<u32>,
}

/// The settings, under IPVS's sysctl names.
#[utoipa::path(get, path = "/settings", tag = "configuration", responses((status = 200, body = Settings)))]
pub(super) async fn read_settings(State(app): State<App>) -> Result<Tagged<Json<Settings>>, Rejection> {
    tagged_settings(&app.director)
}

fn tagged_settings(director: &Director) -> Result<Tagged<Json<Settings>>, Rejection> {
    Tagged::new(director, Resource::Settings, || Ok(Json(director.settings())))
}

/// Changes some settings (`sysctl`, `ipvsadm --set`): a JSON merge patch (RFC 7396).
#[utoipa::path(patch, path = "/settings", tag = "configuration", request_body(content((SettingsPatch = "application/merge-patch+json"), (SettingsPatch = "application/json"))), params(WriteQuery, Conditions),
    responses((status = 200, body = Outcome<Settings>), WriteProblems))]
pub(super) async fn patch_settings(Write(director): Write, Body(patch): Body<Value>) -> Result<Tagged<Json<Settings>>, Rejection> {
    director.patch_settings(&patch).await?;
    tagged_settings(&director)
}

/// Puts all settings back to their defaults.
#[utoipa::path(delete, path = "/settings", tag = "configuration", params(WriteQuery, Conditions),
    responses((status = 200, body = Outcome<Settings>), ChangeProblems))]
pub(super) async fn reset_settings(Write(director): Write) -> Result<Tagged<Json<Settings>>, Rejection> {
    director.edit_settings(|settings| *settings = Settings::default()).await?;
    tagged_settings(&director)
}

/// The whole configuration that can change while the director runs.
#[utoipa::path(get, path = "/config", tag = "configuration", responses((status = 200, body = Document)))]
pub(super) async fn read(State(app): State<App>) -> Result<Tagged<Json<Document>>, Rejection> {
    tagged(&app.director)
}

fn tagged(director: &Director) -> Result<Tagged<Json<Document>>, Rejection> {
    Tagged::new(director, Resource::Document, || Ok(Json(director.document())))
}

/// Makes the whole configuration what the body says, or changes nothing. What is the same in both stays untouched.
#[utoipa::path(put, path = "/config", tag = "configuration", request_body = Document, params(WriteQuery, Conditions),
    responses((status = 200, body = Outcome<Document>), WriteProblems))]
pub(super) async fn put(Write(director): Write, Body(document): Body<Document>) -> Result<Tagged<Json<Document>>, Rejection> {
    director.put_document(&document).await?;
    tagged(&director)
}
