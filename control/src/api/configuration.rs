//! `/api/v1/settings` and `/api/v1/config`: what is not one service.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;

use super::App;
use super::extract::Body;
use super::problem::{ChangeProblems, Rejection, WriteProblems};
use crate::model::{Document, Settings};

/// Settings to change: what is left out stays.
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

impl SettingsPatch {
    fn apply(self, settings: &mut Settings) {
        *settings = Settings {
            sloppy_tcp: self.sloppy_tcp.unwrap_or(settings.sloppy_tcp),
            sloppy_sctp: self.sloppy_sctp.unwrap_or(settings.sloppy_sctp),
            schedule_icmp: self.schedule_icmp.unwrap_or(settings.schedule_icmp),
            nat_icmp_send: self.nat_icmp_send.unwrap_or(settings.nat_icmp_send),
            expire_nodest_conn: self.expire_nodest_conn.unwrap_or(settings.expire_nodest_conn),
            expire_quiescent_template: self.expire_quiescent_template.unwrap_or(settings.expire_quiescent_template),
            conn_reuse_mode: self.conn_reuse_mode.unwrap_or(settings.conn_reuse_mode),
            drop_entry: self.drop_entry.unwrap_or(settings.drop_entry),
            drop_packet: self.drop_packet.unwrap_or(settings.drop_packet),
            secure_tcp: self.secure_tcp.unwrap_or(settings.secure_tcp),
            amemthresh: self.amemthresh.unwrap_or(settings.amemthresh),
            am_droprate: self.am_droprate.unwrap_or(settings.am_droprate),
            lblc_expiration: self.lblc_expiration.unwrap_or(settings.lblc_expiration),
            lblcr_expiration: self.lblcr_expiration.unwrap_or(settings.lblcr_expiration),
            timeout_tcp: self.timeout_tcp.unwrap_or(settings.timeout_tcp),
            timeout_tcpfin: self.timeout_tcpfin.unwrap_or(settings.timeout_tcpfin),
            timeout_udp: self.timeout_udp.unwrap_or(settings.timeout_udp),
        };
    }
}

/// The settings, under IPVS's sysctl names.
#[utoipa::path(get, path = "/settings", tag = "configuration", responses((status = 200, body = Settings)))]
pub(super) async fn read_settings(State(app): State<App>) -> Json<Settings> {
    Json(app.director.settings())
}

/// Changes some settings (`sysctl`, `ipvsadm --set`).
#[utoipa::path(patch, path = "/settings", tag = "configuration", request_body = SettingsPatch, responses((status = 200, body = Settings), WriteProblems))]
pub(super) async fn patch_settings(State(app): State<App>, Body(patch): Body<SettingsPatch>) -> Result<Json<Settings>, Rejection> {
    Ok(Json(app.director.edit_settings(|settings| patch.apply(settings)).await?))
}

/// Puts all settings back to their defaults.
#[utoipa::path(delete, path = "/settings", tag = "configuration", responses((status = 200, body = Settings), ChangeProblems))]
pub(super) async fn reset_settings(State(app): State<App>) -> Result<Json<Settings>, Rejection> {
    Ok(Json(app.director.edit_settings(|settings| *settings = Settings::default()).await?))
}

/// The whole configuration that can change while the director runs.
#[utoipa::path(get, path = "/config", tag = "configuration", responses((status = 200, body = Document)))]
pub(super) async fn read(State(app): State<App>) -> Json<Document> {
    Json(app.director.document())
}

/// Makes the whole configuration what the body says, or changes nothing. What is the same in both stays untouched.
#[utoipa::path(put, path = "/config", tag = "configuration", request_body = Document, responses((status = 200, body = Document), WriteProblems))]
pub(super) async fn put(State(app): State<App>, Body(document): Body<Document>) -> Result<Json<Document>, Rejection> {
    Ok(Json(app.director.put_document(&document).await?))
}
