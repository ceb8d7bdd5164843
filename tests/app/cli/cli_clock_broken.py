"""A schedule that never comes due."""

from eventwright.sdk import Every

late = Every("0 25 * * *", zone="Europe/Berlin", type="report.due")
