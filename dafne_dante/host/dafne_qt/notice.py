"""A notice in the toolbox that something has ended; it comes, is read or not, and goes by itself.

Invariants: it never takes the focus, opens no window and stops no click: it is a label that lies in the toolbox, whose
one gesture is to go when it is clicked.
"""

from PyQt5.QtCore import QEvent, QObject, Qt, QTimer
from PyQt5.QtGui import QPalette
from PyQt5.QtWidgets import QFrame, QLabel, QWidget

__all__ = ["Notice"]

_STAYS_MS = 15_000
_MARGIN = 8


class Notice(QLabel):  # type: ignore[misc]
    """Lies over the lower edge of the widget that it belongs to."""

    def __init__(self, parent: QWidget, *, stays_ms: int = _STAYS_MS) -> None:
        super().__init__(parent)
        self.setWordWrap(True)
        self.setTextFormat(Qt.PlainText)
        self.setFocusPolicy(Qt.NoFocus)
        self.setAttribute(Qt.WA_ShowWithoutActivating)
        self.setFrameShape(QFrame.Box)
        self.setMargin(_MARGIN)
        self.setAutoFillBackground(True)
        self.setBackgroundRole(QPalette.ToolTipBase)
        self.setForegroundRole(QPalette.ToolTipText)
        self.hide()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(stays_ms)
        self._timer.timeout.connect(self.hide)
        parent.installEventFilter(self)

    def tell(self, text: str) -> None:
        """Show one sentence from now on, for a while."""
        self.setText(text)
        self._lay_out()
        self.show()
        self.raise_()
        self._timer.start()

    def mousePressEvent(self, event: QEvent) -> None:  # noqa: N802 (Qt's name)
        """It was read."""
        self.hide()
        event.accept()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 (Qt's name)
        """Stay at the lower edge."""
        if event.type() == QEvent.Resize and self.isVisible():
            self._lay_out()
        return False

    def _lay_out(self) -> None:
        inside = self.parentWidget().rect()
        width = max(1, inside.width() - 2 * _MARGIN)
        height = self.heightForWidth(width)
        self.setGeometry(_MARGIN, inside.height() - height - _MARGIN, width, height)
