//! `top`: the children live, from the board.

mod rows;
mod usage;

use std::time::{Duration, Instant};

use lenore::daemon::view::Snapshot;
use lenore::daemon::{BoardFile, ParentState};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Row, Table, TableState};
use ratatui::{DefaultTerminal, Frame};

use self::usage::Meter;
use crate::board;
use crate::failure::{Failure, code};
use crate::output::{say, say_json};
use crate::target::Target;

/// How often the board is read.
const REFRESH: Duration = Duration::from_secs(1);

/// A parent that has not written its heartbeat for longer than this is said to be late.
const LATE: Duration = Duration::from_secs(15);

/// Shows the children: live, or once.
pub fn top(target: &Target, once: bool, is_json: bool) -> Result<(), Failure> {
    let board = board::open(target)?;
    if !once && !is_json {
        let mut terminal = ratatui::try_init().map_err(|error| {
            Failure::new(code::FAILED, format_args!("the terminal: {error}; without one, use --once"))
        })?;
        let outcome = live(&mut terminal, &board);
        ratatui::restore();
        return outcome;
    }
    let mut meter = Meter::default();
    let snapshot = take(&board)?;
    if is_json {
        say_json(&snapshot);
        return Ok(());
    }
    look(&mut meter, &snapshot);
    // A rate takes two looks.
    std::thread::sleep(FIRST_LOOKS);
    let usage = look(&mut meter, &snapshot);
    say(rows::text(&snapshot, heartbeat(&board).as_deref(), &usage));
    Ok(())
}

fn take(board: &BoardFile) -> Result<Snapshot, Failure> {
    board.snapshot().map_err(|error| Failure::new(code::FAILED, error))
}

fn look(meter: &mut Meter, snapshot: &Snapshot) -> std::collections::HashMap<i32, usage::Usage> {
    meter.look(snapshot.children.iter().filter_map(|child| child.pid))
}

/// Says what is wrong with the parent, if anything is.
fn heartbeat(board: &BoardFile) -> Option<String> {
    let age = board.heartbeat_age();
    match board.parent() {
        ParentState::Ended => Some("the daemon has ended: this is its last state".to_owned()),
        ParentState::Dead => Some("the parent is dead: this is its last state".to_owned()),
        ParentState::EarlierBoot => Some("the system was booted since: this is the state before the boot".to_owned()),
        ParentState::Stopped => {
            Some(format!("the parent is stopped; its last heartbeat is {:.0} s old", age.as_secs_f64()))
        }
        _ if age > LATE => Some(format!("the parent's last heartbeat is {:.0} s old", age.as_secs_f64())),
        _ => None,
    }
}

fn live(terminal: &mut DefaultTerminal, board: &BoardFile) -> Result<(), Failure> {
    let (mut meter, mut place) = (Meter::default(), TableState::default().with_selected(0));
    let failed = |error: std::io::Error| Failure::new(code::FAILED, format_args!("the terminal: {error}"));
    loop {
        let snapshot = take(board)?;
        let usage = look(&mut meter, &snapshot);
        let next = Instant::now() + REFRESH;
        loop {
            terminal
                .draw(|frame| draw(frame, &snapshot, heartbeat(board).as_deref(), &usage, &mut place))
                .map_err(failed)?;
            let left = next.saturating_duration_since(Instant::now());
            if !event::poll(left).map_err(failed)? {
                break;
            }
            if let Event::Key(key) = event::read().map_err(failed)?
                && key.kind == KeyEventKind::Press
            {
                match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                    KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(()),
                    KeyCode::Down | KeyCode::Char('j') => place.select_next(),
                    KeyCode::Up | KeyCode::Char('k') => place.select_previous(),
                    KeyCode::PageDown => place.scroll_down_by(PAGE),
                    KeyCode::PageUp => place.scroll_up_by(PAGE),
                    KeyCode::Home => place.select_first(),
                    KeyCode::End => place.select_last(),
                    _ => {}
                }
            }
        }
    }
}

fn draw(
    frame: &mut Frame<'_>,
    snapshot: &Snapshot,
    heartbeat: Option<&str>,
    usage: &std::collections::HashMap<i32, usage::Usage>,
    place: &mut TableState,
) {
    let summary = rows::summary(snapshot, heartbeat);
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(summary.len() as u16 + 1), Constraint::Min(3), Constraint::Length(1)])
            .areas(frame.area());
    frame.render_widget(Paragraph::new(summary.into_iter().map(Line::from).collect::<Vec<_>>()), head);
    let table_rows = rows::sorted(&snapshot.children).into_iter().map(|child| {
        let style = if rows::is_busy(child) { Style::new().fg(Color::Yellow) } else { Style::new() };
        Row::new(rows::cells(child, usage)).style(style)
    });
    let mut widths = rows::WIDTHS.map(Constraint::Length);
    if let Some(last) = widths.last_mut() {
        *last = Constraint::Fill(1);
    }
    let table = Table::new(table_rows, widths)
        .header(Row::new(rows::HEADS).style(Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    frame.render_stateful_widget(table, body, place);
    frame.render_widget(
        Paragraph::new("q: quit   up, down: move").style(Style::new().add_modifier(Modifier::DIM)),
        foot,
    );
}

/// Rows that a page key goes.
const PAGE: u16 = 20;

/// How long a rate of processor time is measured for.
const FIRST_LOOKS: Duration = Duration::from_millis(200);
