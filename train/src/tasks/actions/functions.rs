//! The functions of the phone, and how people ask for them: one file each, in the notation of [`super::grammar`].

mod add_contact;
mod add_to_list;
mod call_contact;
mod create_event;
mod get_weather;
mod navigate;
mod open_app;
mod play_music;
mod send_message;
mod set_alarm;
mod set_bluetooth;
mod set_brightness;
mod set_timer;
mod set_volume;
mod set_wifi;
mod take_note;
mod take_photo;

/// One function: its arguments in the order in which a call writes them, and its phrasings for either split.
pub struct Function {
    pub name: &'static str,
    pub arguments: &'static [&'static str],
    pub(crate) train: &'static [&'static str],
    pub(crate) held_out: &'static [&'static str],
}

/// Every function, in the order of the reports.
pub static FUNCTIONS: &[Function] = &[
    set_timer::FUNCTION,
    set_alarm::FUNCTION,
    send_message::FUNCTION,
    call_contact::FUNCTION,
    navigate::FUNCTION,
    create_event::FUNCTION,
    play_music::FUNCTION,
    set_brightness::FUNCTION,
    set_volume::FUNCTION,
    set_wifi::FUNCTION,
    set_bluetooth::FUNCTION,
    take_note::FUNCTION,
    add_contact::FUNCTION,
    get_weather::FUNCTION,
    add_to_list::FUNCTION,
    open_app::FUNCTION,
    take_photo::FUNCTION,
];
